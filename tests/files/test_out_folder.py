"""One rule for what OUT may hold: verify, open, from_pretrained and parity ask the same."""

import shutil

import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.files.outputs.out_folder import check_out, out_of
from bigbird_port.formats.open_store import open_store
from bigbird_port.models.folder import read_model_folder
from bigbird_port.tokenizers import BigBirdTokenizer
from parity.checks.integrity import check_integrity
from tests.conftest import DEMO
from tests.conversion.brought.sources import numbered, write_torch
from tests.vocabulary import train_vocabulary


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    source = write_torch(folder / "source", numbered())
    (source / "spiece.model").write_bytes(train_vocabulary())
    convert(source, folder / "out", Settings(to=("torch", "flax")))
    return folder / "out"


def other_model(out):
    shutil.copy(out / "torch/config.json", out / "config.json")
    shutil.copy(out / "torch/model.safetensors", out / "model.safetensors")


# What was put into OUT, and its name.
PUT = {
    "another model beside the targets": (other_model, "config.json"),
    "another weight file": (lambda out: (out / "torch/pytorch_model.bin").write_bytes(b"x"), "pytorch_model.bin"),
    "a target more": (lambda out: shutil.copytree(out / "torch", out / "neutral"), "neutral"),
    "an empty folder": (lambda out: (out / "flax/more").mkdir(), "more"),
    "a link": (lambda out: (out / "torch/link").symlink_to(out / "torch/config.json"), "link"),
    "added tokens": (lambda out: (out / "torch/added_tokens.json").write_text("{}"), "added_tokens.json"),
}
ASK = {
    "open": open_store,
    "open a target": lambda out: open_store(out / "torch"),
    "a torch model": lambda out: read_model_folder(out, "torch"),
    "a torch model's folder": lambda out: read_model_folder(out / "torch", "torch"),
    "a Flax model's folder": lambda out: read_model_folder(out / "flax", "flax"),
    "a tokenizer": lambda out: BigBirdTokenizer.from_pretrained(out / "torch"),
    "parity": check_integrity,
}


@pytest.mark.parametrize("asked", ASK)
@pytest.mark.parametrize("what", PUT)
def test_what_convert_did_not_write_is_refused(made, tmp_path, what, asked):
    out = shutil.copytree(made, tmp_path / "out")
    ASK[asked](out)
    change, name = PUT[what]
    change(out)
    with pytest.raises(ValueError, match=rf"convert wrote this folder, but .*{name}"):
        ASK[asked](out)


@pytest.mark.parametrize("what", PUT)
def test_verify_fails_with_the_name(made, tmp_path, what):
    out = shutil.copytree(made, tmp_path / "out")
    change, name = PUT[what]
    change(out)
    result = CliRunner().invoke(main, ["verify", str(out)])
    assert result.exit_code == 1
    assert name in result.output


def test_a_changed_or_damaged_manifest_is_refused(made, tmp_path):
    out = shutil.copytree(made, tmp_path / "out")
    path = out / "manifest.json"
    text = path.read_text()
    for changed in (text.replace('"init_seed": 0', '"init_seed": 1'), text[:-9], "", "[]", '{"a":' * 100_000):
        path.write_text(changed)
        with pytest.raises(ValueError, match=r"manifest\.json"):
            check_out(out / "torch")


def test_folders_without_a_manifest_have_no_rule(made, tmp_path):
    plain = shutil.copytree(made / "torch", tmp_path / "plain")
    (plain / "notes").write_text("mine")
    assert out_of(plain) is None
    read_model_folder(plain, "torch")
    (plain / "manifest.json").write_text('{"manifest_version": 3, "name": "a browser extension"}')
    read_model_folder(plain, "torch")


def test_links_to_out_are_out(made, tmp_path):
    out = shutil.copytree(made, tmp_path / "out")
    (out / "notes").write_text("mine")
    (tmp_path / "link").symlink_to(out / "torch")
    for path in (tmp_path / "link", out / "torch/../torch", out / "flax"):
        with pytest.raises(ValueError, match="notes is not listed"):
            check_out(path)


@pytest.mark.parametrize("command", ["verify", "inspect", "diff", "parity", "from_pretrained"])
@pytest.mark.parametrize("end", ["replaced", "partial"])
def test_what_was_left_over_is_told(made, tmp_path, command, end):
    shutil.copytree(made, tmp_path / f".out.{end}")
    out = tmp_path / "out"
    if command == "from_pretrained":
        with pytest.raises(ValueError, match="mv ") as caught:
            read_model_folder(out / "torch", "torch")
        said = str(caught.value)
    else:
        result = CliRunner().invoke(main, [command, str(out), *([str(out)] if command == "diff" else [])])
        assert result.exit_code == 2
        said = result.output
    assert f"mv {tmp_path}/.out.{end} {tmp_path}/out" in said.replace("\n", "")


def test_convert_puts_back_what_was_set_aside(made, tmp_path):
    shutil.copytree(made, tmp_path / ".out.replaced")
    result = CliRunner().invoke(main, ["convert", str(DEMO), str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "exists already" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    check_out(tmp_path / "out")
