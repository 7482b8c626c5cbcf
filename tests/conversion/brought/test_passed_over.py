"""Weight files beside those that were read are named: by convert, by inspect and in the manifest."""

import json
import shutil

import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.formats.passed_over import passed_over
from tests.conversion.brought.sources import CONFIG, numbered, write_torch

FILES = ["pytorch_model.bin", "flax_model.msgpack", "tf_model.h5", "model.ckpt-7", "model.fp16.safetensors", "orbax/"]
BESIDE = ("training_args.bin", "optimizer.pt", "rng_state.pth", "config.json", "vocab.txt", "trainer_state.json")


@pytest.fixture
def crowded(tmp_path):
    """A torch folder with every kind of weight file beside its own, and what a training run leaves."""
    folder = write_torch(tmp_path / "in", numbered("base"), "base")
    for name in (*FILES[:3], FILES[4], *BESIDE):
        if not (folder / name).exists():
            (folder / name).write_bytes(b"other")
    (folder / "orbax").mkdir()
    return folder


def test_what_was_not_read_is_named(crowded, tmp_path):
    found = passed_over(crowded, [crowded / "model.safetensors"])
    assert found == sorted(name for name in FILES if name != "model.ckpt-7")
    report = convert(crowded, tmp_path / "out")
    (note,) = [note for note in report.plan.notes if "passed over" in note]
    assert note.startswith("weights from model.safetensors; passed over, whatever they hold: flax_model.msgpack, ")
    assert json.loads((tmp_path / "out/manifest.json").read_text())["source"]["passed_over"] == found


def test_inspect_says_it_too(crowded):
    result = CliRunner().invoke(main, ["inspect", str(crowded)])
    assert result.exit_code == 0, result.output
    assert "weights from model.safetensors; passed over" in result.output


def test_a_file_that_was_given_passes_nothing_over(crowded, tmp_path):
    report = convert(crowded / "model.safetensors", tmp_path / "out")
    assert report.plan.passed_over == ()
    assert "passed_over" not in json.loads((tmp_path / "out/manifest.json").read_text())["source"]


@pytest.mark.parametrize("sharded", [False, True])
def test_a_folder_of_one_model_has_nothing_to_name(tmp_path, sharded):
    folder = write_torch(tmp_path / "in", numbered("base"), "base")
    choices = Settings(to=("torch", "tf", "flax", "neutral"))
    if sharded:
        from bigbird_port.conversion.targets import Choices

        choices = Settings(to=("torch", "tf"), choices=Choices(max_shard_size=4_000))
    convert(folder, tmp_path / "out", choices)
    for target in choices.to:
        assert convert(tmp_path / "out" / target, tmp_path / target).plan.passed_over == ()


def test_of_shards_and_older_steps_one_name_stands_for_all(tmp_path):
    from bigbird_port.conversion.targets import Choices

    folder = write_torch(tmp_path / "in", numbered("base"), "base")
    convert(folder, tmp_path / "out", Settings(to=("torch", "tf"), choices=Choices(max_shard_size=4_000)))
    torch, tf = (shutil.copytree(tmp_path / "out" / name, tmp_path / name) for name in ("torch", "tf"))
    (torch / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert convert(torch, tmp_path / "a").plan.passed_over == ("model.safetensors.index.json",)
    for path in list(tf.glob("model.ckpt*")):
        (tf / path.name.replace("ckpt", "old")).write_bytes(path.read_bytes())
    assert len(convert(tf, tmp_path / "b").plan.passed_over) == 1


def test_of_what_convert_wrote_the_other_folders_are_named(tmp_path):
    folder = write_torch(tmp_path / "in", numbered("base", CONFIG), "base")
    convert(folder, tmp_path / "out", Settings(to=("torch", "flax", "tf")))
    assert convert(tmp_path / "out", tmp_path / "again").plan.passed_over == ("flax/", "tf/")
