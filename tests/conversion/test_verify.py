"""Verification: what was written is vouched for, and nothing else is."""

import hashlib
import json
import random
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.conversion.manifest import MANIFEST
from bigbird_port.conversion.targets import Choices
from bigbird_port.conversion.verify import verify
from bigbird_port.formats.open_store import open_store
from tests.conftest import DEMO, GOLDEN, require
from tests.conversion.brought.sources import change_manifest, numbered, rewrite, write_torch
from tests.vocabulary import train_vocabulary

TARGETS = ("torch", "flax", "tf", "neutral")
CHOICES = Choices(max_shard_size=3_000)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A torch source with a vocabulary, and what convert made of it for every target, and for Orbax."""
    folder = tmp_path_factory.mktemp("verify")
    source = write_torch(folder / "source", numbered())
    (source / "spiece.model").write_bytes(train_vocabulary())
    convert(source, folder / "all", Settings(to=TARGETS, choices=CHOICES))
    convert(source, folder / "orbax", Settings(to=("flax",), choices=Choices(flax_format="orbax")))
    return folder


@pytest.fixture
def out(made, tmp_path):
    return shutil.copytree(made / "all", tmp_path / "out")


def failed(result):
    return {check.name: check.detail for check in result.checks if not check.passed}


def run(*arguments):
    return CliRunner().invoke(main, ["verify", *map(str, arguments)])


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_written_is_verified(made):
    result = verify(made / "all", made / "source")
    assert (result.passed, failed(result)) == (True, {})
    files = [path for path in files_of(made / "all") if path.name != MANIFEST]
    size = sum(path.stat().st_size for path in files)
    assert result.counts == {"files": len(files), "bytes": size, "tensors": 4 * 46, "targets": 4}
    names = [check.name for check in result.checks]
    assert names[:5] == ["manifest", "targets", "torch files", "torch weights", "torch configuration"]
    assert names[-3:] == ["source files", "source weights", "fills"]
    assert len(names) == len(set(names)) == 2 + 3 * 4 + 3
    shards = [path.name for path in files if path.name.startswith("model-0")]
    assert len(shards) > 2
    assert {path.name for path in files} >= {"spiece.model", "tokenizer.json", "flax_model.msgpack", "config.json"}


@pytest.mark.parametrize("which", ["all", "orbax"])
def test_any_flipped_bit_is_seen(made, tmp_path, which):
    out = shutil.copytree(made / which, tmp_path / "out")
    choose = random.Random(which)
    files = files_of(out)
    assert len(files) > 10
    for path in files:
        data = path.read_bytes()
        if not data:
            continue
        for _ in range(3):
            at = choose.randrange(len(data) * 8)
            flipped = bytearray(data)
            flipped[at // 8] ^= 1 << at % 8
            path.write_bytes(flipped)
            result = run(out)
            assert result.exit_code in (1, 2), f"{path}: bit {at}"
            assert isinstance(result.exception, SystemExit), result.exception
            if path.name != MANIFEST:
                assert result.exit_code == 1
                assert path.name in result.output
        path.write_bytes(data)
    assert verify(out).passed


def test_every_bit_of_the_manifest_counts(made, tmp_path):
    """Its own digest does not cover how numbers and characters are spelled: 1e-12 and 1E-12 differ by one bit."""
    shutil.copytree(made / "orbax", tmp_path / "out")
    path = tmp_path / "out" / MANIFEST
    data = path.read_bytes()
    choose = random.Random(3)
    positions = [8 * data.index(b"1e-12") + 13, *choose.sample(range(len(data) * 8), 60)]
    for at in positions:
        flipped = bytearray(data)
        flipped[at // 8] ^= 1 << at % 8
        path.write_bytes(flipped)
        shutil.rmtree(tmp_path / "out/flax", ignore_errors=True)  # the manifest alone must tell
        result = CliRunner().invoke(main, ["verify", str(tmp_path / "out"), "--json"])
        if result.exit_code == 1:
            assert not json.loads(result.output)["checks"][0]["passed"], at
        else:
            assert result.exit_code == 2, at


def swap(folder, first, second):
    """Exchange the bytes of two tensors where they lie, and return the files touched."""
    store = open_store(folder).store
    runs = [store.runs[name] for name in (first, second)]
    assert store.tensors[first] == store.tensors[second]
    data = [b"".join(part.path.read_bytes()[part.offset : part.end] for part in parts) for parts in runs]
    assert data[0] != data[1]
    for parts, new in zip(runs, reversed(data), strict=True):
        (part,) = parts
        with part.path.open("r+b") as file:
            file.seek(part.offset)
            file.write(new)
    return {part.path for parts in runs for part in parts}


@pytest.mark.parametrize("target", TARGETS)
def test_two_tensors_swapped_and_the_manifest_made_to_fit(out, target):
    names = json.loads((out / MANIFEST).read_text())["tensors"]
    first, second = (
        names[f"encoder.layer.1.attention.self.{which}.kernel"]["names"][target] for which in ("query", "key")
    )
    touched = swap(out / target, first, second)

    def fit(values):
        for record in values["targets"][target]["files"]:
            if out / target / record["name"] in touched:
                record["sha256"] = hashlib.sha256((out / target / record["name"]).read_bytes()).hexdigest()

    change_manifest(out, fit)
    found = failed(verify(out))
    assert set(found) == {f"{target} weights"}
    if target == "tf":
        assert "does not match its crc32c" in found["tf weights"]
    else:
        assert "encoder.layer.1.attention.self.query.kernel differs from its sha256" in found[f"{target} weights"]


def hashes(values, target="torch"):
    return values["targets"][target]["files"]


LEADS_OUT = ["../all/torch/config.json", "/etc/hostname", "x/../../../secret", "./config.json", "", "..", "a\\..\\b"]


@pytest.mark.parametrize("name", LEADS_OUT)
def test_names_that_lead_out_are_refused_and_not_read(out, name, monkeypatch):
    change_manifest(out, lambda values: hashes(values)[0].update(name=name))
    read = []
    monkeypatch.setattr("bigbird_port.files.outputs.listed_files.file_digest", lambda path: read.append(path) or "")
    found = failed(verify(out))
    assert f"{name!r} leads out of the folder: refused" in found["torch files"]
    assert read
    assert not [path for path in read if "torch" in path.parts]


def test_a_target_that_leads_out_is_refused(out):
    change_manifest(out, lambda values: values["targets"].update({"../source": values["targets"]["torch"]}))
    assert "'../source' is no target: refused" in failed(verify(out))["targets"]


def link_file(out):
    (out / "torch/config.json").rename(out.parent / "config.json")
    (out / "torch/config.json").symlink_to(out.parent / "config.json")


def link_folder(out):
    (out / "torch").rename(out.parent / "torch")
    (out / "torch").symlink_to(out.parent / "torch")


def add_link_to_folder(out):
    (out / "torch/more").symlink_to(out / "flax")


FAULTS = {
    "a link in place of a file": (link_file, "torch files", "config.json is a link"),
    "a link in place of a folder": (link_folder, "torch files", "the folder is a link: refused"),
    "a link to a folder": (add_link_to_folder, "torch files", "more is a link"),
    "a file that is not listed": (lambda out: (out / "flax/x").touch(), "flax files", "x is not listed"),
    "a file deep down": (
        lambda out: ((out / "tf/a/b").mkdir(parents=True), (out / "tf/a/b/c").touch()),
        "tf files",
        "a is not listed (a folder)",
    ),
    "a missing file": (lambda out: (out / "tf/checkpoint").unlink(), "tf files", "checkpoint is missing"),
    "a missing folder": (lambda out: shutil.rmtree(out / "neutral"), "neutral files", "the folder is missing"),
    "a folder in place of a file": (
        lambda out: ((out / "torch/config.json").unlink(), (out / "torch/config.json").mkdir()),
        "torch files",
        "config.json is missing",
    ),
    "a target that is not listed": (
        lambda out: change_manifest(out, lambda values: values["targets"].pop("flax")),
        "targets",
        "flax is not listed (a folder)",
    ),
    "a file listed twice": (
        lambda out: change_manifest(out, lambda values: hashes(values).append(hashes(values)[0])),
        "torch files",
        "config.json is listed 2 times",
    ),
    "another configuration": (
        lambda out: change_manifest(out, lambda values: values["config"].update(layer_norm_eps=1e-5)),
        "torch configuration",
        "config.json differs from the manifest in layer_norm_eps",
    ),
    "another head": (
        lambda out: change_manifest(out, lambda values: values.update(head="base")),
        "manifest",
        "its configuration is not that of a base model",
    ),
    "another dtype": (
        lambda out: change_manifest(out, lambda values: values.update(dtype="float16")),
        "torch weights",
        "is float32, expected float16",
    ),
    "no hash of a weight": (
        lambda out: change_manifest(out, lambda values: values["tensors"]["pooler.bias"].update(sha256="")),
        "neutral weights",
        "pooler.bias differs from its sha256",
    ),
    "a weight left out of the manifest": (
        lambda out: change_manifest(out, lambda values: values["tensors"].pop("pooler.bias")),
        "manifest",
        "pooler.bias is not listed",
    ),
    "a weight left out of a target": (
        lambda out: change_manifest(out, lambda values: values["tensors"]["pooler.bias"]["names"].pop("flax")),
        "flax weights",
        "pooler.bias is not in the manifest",
    ),
    "two names exchanged": (
        lambda out: change_manifest(
            out,
            lambda values: values["tensors"]["pooler.bias"]["names"].update(
                torch=values["tensors"]["cls.seq_relationship.bias"]["names"]["torch"]
            ),
        ),
        "torch weights",
        "pooler.bias is called bert.pooler.bias, in the manifest cls.seq_relationship.bias",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(out, fault):
    damage, name, detail = FAULTS[fault]
    damage(out)
    result = verify(out)
    assert not result.passed
    assert detail in failed(result)[name]


def test_a_weight_dropped_from_file_and_manifest(out):
    """An initialised weight may be absent from a source, but not from what was written."""
    rewrite(out / "neutral", lambda arrays: arrays.pop("pooler.bias") is None, "model.neutral.safetensors")
    result = failed(verify(out))
    assert "neutral weights" in result


def test_nothing_compared_is_a_failure(out):
    for target in TARGETS:
        shutil.rmtree(out / target)
    change_manifest(out, lambda values: values.update(targets={}))
    result = run(out)
    assert result.exit_code == 2
    assert "nothing to compare" in result.output


def test_what_cannot_be_checked_is_said(made, tmp_path):
    result = run(tmp_path)
    assert (result.exit_code, "there is no manifest" in result.output) == (2, True)
    convert(DEMO, tmp_path / "fast", Settings(checksums=False))
    result = run(tmp_path / "fast")
    assert (result.exit_code, "--no-checksums" in result.output) == (2, True)
    result = run(made / "all", "--source", tmp_path / "absent")
    assert (result.exit_code, "there is no such file" in result.output) == (2, True)


def test_lines_and_json(out, made):
    result = run(out, "--source", made / "source")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert len(lines) == 18
    assert all(line.startswith("ok ") for line in lines[:-1])
    assert "verified" in lines[-1]
    assert "184 tensors, 4 targets compared" in lines[-1]
    (out / "torch/config.json").write_text("{}")
    result = run(out, "--json")
    values = json.loads(result.output)
    assert (result.exit_code, values["version"], values["passed"]) == (1, 1, False)
    assert [check["name"] for check in values["checks"] if not check["passed"]] == [
        "torch files",
        "torch configuration",
    ]


def test_another_source_is_seen(made, tmp_path):
    other = shutil.copytree(made / "source", tmp_path / "other")

    def flip(arrays):
        arrays["bert.encoder.layer.0.output.dense.weight"].view(np.uint32)[3, 5] ^= 1

    rewrite(other, flip)
    found = failed(verify(made / "all", other))
    assert set(found) == {"source files", "source weights"}
    assert found["source weights"] == "encoder.layer.0.output.dense.kernel differs from its sha256"
    (other / "model.safetensors").rename(other / "pytorch_model.safetensors")
    found = verify(made / "all", other / "pytorch_model.safetensors").checks[-3:]
    assert [check.passed for check in found] == [True, False, True]
    assert "not compared" in found[0].detail


def test_the_same_weights_in_another_form_are_the_source_too(made):
    result = verify(made / "all", made / "orbax")
    assert result.passed
    assert result.checks[-2].detail.startswith("46 read again from the source")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_casts_and_fills_are_made_again(made, tmp_path, dtype):
    source, out = made / "source", tmp_path / "out"
    convert(source, out, Settings(head="qa", seed=4, dtype=dtype))
    result = verify(out, source)
    assert (result.passed, failed(result)) == (True, {})
    assert result.checks[-1].detail.startswith("8 made again")
    change_manifest(out, lambda values: values.update(init_seed=5))
    found = failed(verify(out, source))
    assert set(found) == {"fills"}
    assert "differs from what the seed would give" in found["fills"]


def test_zeros_that_stand_in_for_biases(tmp_path):
    source = require(GOLDEN["tiny-block16"]).checkpoint
    convert(source, tmp_path / "out", Settings(to=("torch", "tf")))
    result = verify(tmp_path / "out", source)
    assert (result.passed, failed(result)) == (True, {})
    assert result.checks[-1].detail.startswith("3 made again")


def test_a_source_whose_names_depend_on_its_head(tmp_path):
    """A torch classifier converted to another head: only its own configuration tells what its names mean."""
    source = write_torch(tmp_path / "source", numbered("sequence-classification"), "sequence-classification")
    convert(source, tmp_path / "out", Settings(head="token-classification"))
    assert verify(tmp_path / "out", source).passed
