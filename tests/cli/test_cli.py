"""Bad input to the command line: exit code 2, one message that names the thing and the next step, nothing left."""

import json

import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.families.bigbird.config import BigBirdConfig
from tests.conftest import DEMO

SHARD = "model.ckpt-30.data-00000-of-00001"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "ckpt"
    folder.mkdir()
    for file in DEMO.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def truncate(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def rename_model(source):
    """A configuration beside the checkpoint that names another model."""
    flags = json.loads((source / "pretrain.config").read_text())
    (source / "pretrain.config").write_text(json.dumps(flags | {"model_type": "bert"}))


BROKEN = {
    "missing": (lambda s: [file.unlink() for file in s.iterdir()], "no weights in this folder"),
    "truncated shard": (lambda s: truncate(s / SHARD, 1000), "truncated: it has 1000 bytes"),
    "empty shard": (lambda s: truncate(s / SHARD, 0), "truncated: it has 0 bytes"),
    "no data": (lambda s: (s / SHARD).unlink(), "this data file is missing: fetch it"),
    "no index": (lambda s: (s / "model.ckpt-30.index").unlink(), "model.ckpt-30.index is not in"),
    "truncated index": (lambda s: truncate(s / "model.ckpt-30.index", 2000), "damaged index"),
    "another model": (rename_model, "this is the configuration of another model"),
    "no JSON": (lambda s: truncate(s / "pretrain.config", 30), "expected a JSON configuration"),
    "two configurations": (
        lambda s: (s / "config.json").write_text(json.dumps(BigBirdConfig().to_json_values("BigBirdModel"))),
        "choose one by --config",
    ),
}


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_refused(result, message, tmp_path):
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)
    assert not [path for path in tmp_path.iterdir() if path.name != "ckpt"]


@pytest.mark.parametrize("fault", BROKEN)
def test_damaged_sources(source, tmp_path, fault):
    damage, message = BROKEN[fault]
    damage(source)
    assert_refused(run("convert", source, tmp_path / "out"), message, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "absent.json"], "absent.json: expected a JSON configuration"),
        (["--head", "nose"], "unknown head 'nose'"),
        (["--num-attention-heads", "4"], "--num-attention-heads is 4, but"),
        (["--vocab", "absent.model"], "absent.model"),
        (["--seed", "-1"], "-1 is not in the range"),
    ],
)
def test_bad_options(source, tmp_path, arguments, message):
    assert_refused(run("convert", source, tmp_path / "out", *arguments), message, tmp_path)


def test_a_shard_that_changes_while_it_is_read(source, tmp_path):
    """The bytes are there, but not those of the checkpoint: found when they are read, and nothing is left."""
    data = bytearray((source / SHARD).read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    (source / SHARD).write_bytes(data)
    assert_refused(run("convert", source, tmp_path / "out"), "does not match its crc32c", tmp_path)


def test_unwritable_output(source, tmp_path):
    assert_refused(run("convert", source, "/proc/out"), "/proc/out: cannot be written", tmp_path)


def test_help_names_every_command():
    result = run("--help")
    assert result.exit_code == 0
    assert all(name in result.output for name in ("convert", "demo", "diff", "inspect", "parity", "schema", "verify"))
