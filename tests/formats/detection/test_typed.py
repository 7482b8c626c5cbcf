"""Addresses and names of a hub in place of a path: shown as typed, with the command that downloads them."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.formats.detection.typed import check_address, check_hub_name
from bigbird_port.formats.open_store import open_store

HUB = "hf download google/bigbird-roberta-base"
ADDRESSES = {
    "gs://bucket/model.ckpt-0": "gsutil -m cp -r 'gs://bucket/model.ckpt-0*' .",
    "gs://bucket//double/": "gsutil -m cp -r gs://bucket//double/ .",
    "s3://bucket/run": "aws s3 cp --recursive s3://bucket/run .",
    "https://example.org/model.safetensors": "curl -LO https://example.org/model.safetensors",
    "https://huggingface.co/google/bigbird-roberta-base": f"{HUB} --local-dir bigbird-roberta-base",
    "https://huggingface.co/google/bigbird-roberta-base/tree/main": f"{HUB} --local-dir",
    "https://hf.co/google/bigbird-roberta-base/resolve/main/a/model.safetensors?x=1": f"{HUB} a/model.safetensors ",
    "hf://google/bigbird-roberta-base": f"{HUB} --local-dir",
    "strange://x": "download it first",
}  # fmt: skip


@pytest.mark.parametrize("command", ["convert", "inspect", "diff"])
@pytest.mark.parametrize("typed", ADDRESSES)
def test_an_address_is_shown_as_typed(typed, command, tmp_path):
    rest = {"convert": [str(tmp_path / "out")], "inspect": [], "diff": [str(tmp_path)]}[command]
    result = CliRunner().invoke(main, [command, typed, *rest])
    assert result.exit_code == 2
    assert result.output.startswith(f"Error: {typed}: expected a path on this machine, found an address: download it")
    assert ADDRESSES[typed] in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("typed", ["gs://bucket/model.ckpt-0", "https://example.org/a"])
def test_an_address_that_a_path_has_folded_is_known_again(typed, tmp_path):
    with pytest.raises(ValueError, match=f"^{typed}: expected a path on this machine"):
        open_store(Path(typed))


def test_an_address_of_a_file_here_is_told_to_be_a_path():
    with pytest.raises(ValueError, match="file:///home/a/model: expected a path, .*: give /home/a/model$"):
        check_address("file:///home/a/model")


@pytest.mark.parametrize("typed", ["model.ckpt-0", "a/b", "c:/models", "x:y", "run:/1", "a//b", "", ":", "://", "gs:x"])
def test_a_path_is_no_address(typed):
    check_address(typed)


def test_a_name_of_the_hub_is_told_to_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["convert", "google/bigbird-roberta-base", "out"])
    assert result.exit_code == 2
    assert result.output.startswith("Error: google/bigbird-roberta-base: there is no such file or folder; if it is the")
    assert f"{HUB} --local-dir bigbird-roberta-base, and give bigbird-roberta-base" in result.output
    (tmp_path / "google").mkdir()  # then it is a path, whose folder is there
    result = CliRunner().invoke(main, ["convert", "google/bigbird-roberta-base", "out"])
    assert (result.exit_code, "hf download" in result.output) == (2, False)


@pytest.mark.parametrize("typed", ["name", "a/b/c", "/a/b", "../b", "./b", "a b/c", "a/", "runs/"])
def test_a_path_is_no_name_of_the_hub(typed):
    check_hub_name(typed)
