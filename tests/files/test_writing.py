"""What an option writes never takes the place of what the command did not write."""

import os

import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.files.writing import BEGINNINGS, check_all_writable, check_kept_folder, write_whole
from tests.conftest import DEMO

SAMPLES = {
    "convert --json": '{\n "version": 1,\n "out": null}',
    "parity --json": '{\n "version": 3,\n "bigbird_port": "0"}',
    "parity --html": '<!doctype html>\n<html lang="en">\n<title>BigBird parity: passed</title>',
    "parity --junit": '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="bigbird-port parity">',
    "parity --markdown": "## BigBird parity: passed",
    "parity faults --json": '{\n "passed": true,\n "into": "torch"}',
    "parity mutants --json": '{\n "mutants_of": "torch",\n "seed": 0}',
    "parity calibrate --out": '{\n "version": 1,\n "command": "bigbird-port parity calibrate --seed 0"}',
    "parity baseline save": '{\n "false_alarm": 0.1}',
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_file_of_its_kind_is_replaced_and_no_other(tmp_path, kind):
    path = tmp_path / "file"
    for before in (None, "", SAMPLES[kind]):
        if before is not None:
            path.write_text(before)
        write_whole(path, SAMPLES[kind] + "new", kind)
        assert path.read_text() == SAMPLES[kind] + "new"
    for other in ({*SAMPLES.values()} - {SAMPLES[kind]}) | {"mine", "{}", " " + SAMPLES[kind]}:
        path.write_text(other)
        with pytest.raises(ValueError, match="nothing else is overwritten"):
            write_whole(path, SAMPLES[kind], kind)
        assert path.read_text() == other
    assert os.listdir(tmp_path) == ["file"]


def test_every_kind_has_a_sample():
    assert BEGINNINGS.keys() == {*SAMPLES, "parity --keep"}


def test_links_folders_pipes_and_places_that_are_not_there(tmp_path):
    (tmp_path / "mine").write_text(SAMPLES["convert --json"])
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "dangling", "folder", "pipe", "no/file"):
        with pytest.raises(ValueError, match=name):
            write_whole(tmp_path / name, "new", "convert --json")
    assert (tmp_path / "mine").read_text() == SAMPLES["convert --json"]
    assert not (tmp_path / "absent").exists()


def test_a_failure_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text(SAMPLES["convert --json"])
    monkeypatch.setattr(os, "replace", lambda source, target: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(ValueError, match="No space left"):
        write_whole(path, "new", "convert --json")
    assert path.read_text() == SAMPLES["convert --json"]
    assert os.listdir(tmp_path) == ["file"]


def test_two_options_cannot_name_one_file(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="parity --json and parity --html cannot both write it"):
        check_all_writable([(tmp_path / "a", "parity --json"), (tmp_path / "link/a", "parity --html")])


def test_kept_tensors(tmp_path):
    import numpy as np
    import safetensors.numpy

    arrays = {"value.x": np.zeros(2, np.float32)}
    safetensors.numpy.save_file(arrays, tmp_path / "qa.x.safetensors", {"sentence": 'a "b" c', "condition": "d"})
    check_kept_folder(tmp_path)
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"model\.safetensors: exists and is not what 'parity --keep' wrote"):
        check_kept_folder(tmp_path)


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_convert_refuses_before_it_begins(tmp_path):
    (tmp_path / "notes.json").write_text('{"mine": 1}')
    for file in ("notes.json", "out/report.json", "out/torch/report.json"):
        result = run("convert", DEMO, tmp_path / "out", "--json", tmp_path / file)
        assert result.exit_code == 2
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "notes.json").read_text() == '{"mine": 1}'
    for _ in range(2):
        done = run("convert", DEMO, tmp_path / "out", "--to", "torch", "--overwrite", "--json", tmp_path / "report")
        assert done.exit_code == 0, done.output
    assert run("convert", DEMO, tmp_path / "b", "--to", "torch", "--quiet", "--json", "-").output.startswith("{")


@pytest.mark.parametrize("option", ["--json", "--html", "--junit", "--markdown", "--keep"])
def test_parity_refuses_before_it_begins(tmp_path, option):
    (tmp_path / "notes").write_text("mine")
    convert(DEMO, tmp_path / "out", Settings(to=("torch",)))
    for place in ("notes", "out/new"):
        result = run("parity", tmp_path / "out", option, tmp_path / place)
        assert result.exit_code == 2
        assert place in result.output
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_report_in_an_output_that_is_not_there_yet_is_to_be_placed_elsewhere(tmp_path):
    """Not: to make the folder first, which would then be refused as well."""
    for name in ("out/report.json", "out/torch/report.json"):
        done = CliRunner().invoke(main, ["convert", str(DEMO), str(tmp_path / "out"), "--json", str(tmp_path / name)])
        assert done.exit_code == 2
        assert "which may hold nothing but what convert lists: choose another place" in done.output
    assert not list(tmp_path.iterdir())
