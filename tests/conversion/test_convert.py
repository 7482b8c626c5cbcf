import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from flax.serialization import msgpack_restore
from flax.traverse_util import flatten_dict

from bigbird_port.conversion import convert as convert_module
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.family import BIGBIRD
from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.formats.filling import write_arrays
from bigbird_port.formats.flax.msgpack_reader import read_flax_msgpack
from bigbird_port.formats.flax.msgpack_writer import FlaxMsgpackFormat
from bigbird_port.formats.tensorflow.bundle_reader import TensorBundle
from bigbird_port.formats.tensorflow.locate import find_checkpoint
from bigbird_port.models.folder import read_model_folder
from bigbird_port.schema.initialise import initial_value
from bigbird_port.schema.reading.matching import infer_settings, match_names
from bigbird_port.schema.table import weights_of
from tests.conftest import DEMO, FOLDERS, GOLDEN, require

HEADS_OF = dict.fromkeys(FOLDERS, "pretraining") | {"tiny-classifier": "sequence-classification"}


@pytest.mark.parametrize("name", FOLDERS)
def test_every_tensor_of_both_outputs_equals_the_source_bit_for_bit(converted, name):
    """The layouts are undone here by hand, not by the code under test."""
    out = converted(name)
    bundle = TensorBundle(find_checkpoint(GOLDEN[name].checkpoint))
    torch_arrays = safetensors.numpy.load_file(out / "torch/model.safetensors")
    flax_arrays = flatten_dict(msgpack_restore((out / "flax/flax_model.msgpack").read_bytes()), sep="/")
    tensors = json.loads((out / "manifest.json").read_text())["tensors"]
    compared = 0
    for canonical, entry in tensors.items():
        if entry["source"] is None:
            assert not torch_arrays[entry["names"]["torch"]].any()
            continue
        source = bundle.read(entry["source"])
        if "attention/self" in entry["source"]:
            source = source.reshape(-1, source.shape[-2] * source.shape[-1]) if source.ndim == 3 else source
            source = source.reshape(-1) if source.shape[0] != source.size and canonical.endswith("bias") else source
        elif "attention/output/dense/kernel" in entry["source"]:
            source = source.reshape(-1, source.shape[-1])
        in_torch = torch_arrays[entry["names"]["torch"]]
        in_torch = in_torch.T if canonical.endswith(".kernel") and "seq_relationship" not in canonical else in_torch
        in_flax = flax_arrays[entry["names"]["flax"]]
        in_flax = in_flax.T if canonical == "cls.seq_relationship.kernel" else in_flax
        assert in_torch.tobytes() == source.tobytes(), canonical
        assert in_flax.tobytes() == source.tobytes(), canonical
        compared += 1
    assert compared == len(torch_arrays) - sum(entry["source"] is None for entry in tensors.values())
    assert len(flax_arrays) == len(torch_arrays) == len(tensors)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_head_is_what_the_checkpoint_holds(converted, name):
    manifest = json.loads((converted(name) / "manifest.json").read_text())
    assert manifest["head"] == HEADS_OF[name]
    config = json.loads((converted(name) / "torch/config.json").read_text())
    assert config["architectures"] == [HEADS[HEADS_OF[name]].class_name]


def test_both_naming_styles_give_the_same_files(converted):
    current, bert = converted("tiny-pretrain"), converted("tiny-pretrain-bert-names")
    for file in ("torch/model.safetensors", "flax/flax_model.msgpack"):
        assert (current / file).read_bytes() == (bert / file).read_bytes()


@pytest.mark.parametrize("name", FOLDERS)
def test_every_source_name_has_a_fate(converted, name):
    manifest = json.loads((converted(name) / "manifest.json").read_text())
    bundle = TensorBundle(find_checkpoint(GOLDEN[name].checkpoint))
    assert set(manifest["source_names"]) == set(bundle.entries)
    fates = {name: entry["fate"] for name, entry in manifest["source_names"].items()}
    assert fates["global_step" if "global_step" in fates else next(n for n in fates if "adam_m" in n)] == "ignored"
    assert all(entry["detail"] for entry in manifest["source_names"].values())
    assert {entry["fate"] for entry in manifest["source_names"].values()} == {"converted", "ignored"}


def test_missing_output_bias_becomes_zeros_only_without_use_bias(converted):
    manifest = json.loads((converted("tiny-block16") / "manifest.json").read_text())
    zeros = [name for name, entry in manifest["tensors"].items() if entry["how"] == "zeros"]
    assert zeros == [f"encoder.layer.{i}.attention.output.dense.bias" for i in range(3)]


@pytest.mark.parametrize("head", HEADS)
def test_any_head_can_be_written(tmp_path, head):
    plan = convert(DEMO, tmp_path / "out", Settings(head=head, seed=3)).plan
    torch_folder = read_model_folder(tmp_path / "out", "torch")
    flax_folder = read_model_folder(tmp_path / "out", "flax")
    assert torch_folder.head == flax_folder.head == head
    lacking = [name for name, how in plan.match.fills.items() if how == "initialise"]
    assert bool(lacking) == (head not in ("base", "pretraining", "masked-lm", "causal-lm"))
    rows = {row.name: row for row in weights_of(plan.config, head, "torch")}
    for name in lacking:
        np.testing.assert_array_equal(torch_folder.weights[name], flax_folder.weights[name])
        np.testing.assert_array_equal(torch_folder.weights[name], initial_value(rows[name], plan.config, 3))
    if head == "causal-lm":
        assert (plan.config.is_decoder, plan.config.attention_type) == (True, "original_full")


def test_unused_weights_are_said(tmp_path):
    plan = convert(DEMO, tmp_path / "out", Settings(head="qa")).plan
    unused = {name: fate.detail for name, fate in plan.match.fates.items() if fate.what == "unused"}
    assert unused["cls/seq_relationship/output_weights"] == "belongs to pretraining, not to qa"
    assert "bert/pooler/dense/kernel" in unused


def test_initial_values_depend_on_name_and_seed_only():
    rows = {row.name: row for row in weights_of(BigBirdConfig(hidden_size=24), "qa")}
    kernel = rows["qa_classifier.qa_outputs.kernel"]
    config = BigBirdConfig(hidden_size=24)
    first = initial_value(kernel, config, 0)
    np.testing.assert_array_equal(first, initial_value(kernel, config, 0))
    assert (first != initial_value(kernel, config, 1)).all()
    assert np.abs(first).max() <= 2 * config.initializer_range
    wide = initial_value(rows["qa_classifier.intermediate.dense.kernel"], config, 0)
    assert 0.8 < wide.std() / config.initializer_range < 0.95  # a normal cut at two deviations has 0.88
    assert (initial_value(rows["qa_classifier.output.LayerNorm.gamma"], config, 0) == 1).all()


def test_without_a_configuration_the_variables_tell(tmp_path):
    for file in DEMO.glob("model*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match="--num-attention-heads"):
        convert(tmp_path, tmp_path / "out")
    plan = convert(tmp_path, tmp_path / "out", Settings(num_attention_heads=2)).plan
    assert (plan.config.hidden_size, plan.config.num_hidden_layers, plan.config.intermediate_size) == (16, 2, 32)
    assert (plan.config.vocab_size, plan.config.max_position_embeddings) == (80, 1024)
    assert "inferred from the variables" in plan.notes[0]
    assert "block_size=64" in plan.notes[1]


def test_3d_kernels_tell_the_heads():
    bundle = TensorBundle(find_checkpoint(require(GOLDEN["tiny-pretrain-bert-names"]).checkpoint))
    settings = infer_settings(BIGBIRD, {name: entry.shape for name, entry in bundle.entries.items()})
    assert (settings["num_attention_heads"], settings["use_bias"]) == (2, True)


def wrong_flags(tmp_path, **changes):
    flags = json.loads((DEMO / "pretrain.config").read_text()) | changes
    path = tmp_path / "wrong.config"
    path.write_text(json.dumps(flags))
    return path


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {"intermediate_size": 64},
            ["misshapen: bert/encoder/layer_0/intermediate/dense/kernel is [16, 32]", "[16, 64]"],
        ),
        ({"num_hidden_layers": 3}, ["missing: bert/encoder/layer_2/attention/self/query/kernel [16, 16]"]),
        ({"num_hidden_layers": 1}, ["extra: bert/encoder/layer_1/attention/self/query/kernel [16, 16]"]),
        ({"use_bias": False}, ["extra: bert/encoder/layer_0/attention/self/query/bias [16]"]),
        ({"vocab_size": 81}, ["misshapen: bert/embeddings/word_embeddings is [80, 16]", "[81, 16]"]),
    ],
)
def test_a_configuration_that_contradicts_the_variables_is_reported_whole(tmp_path, changes, lines):
    with pytest.raises(ValueError, match="do not fit the configuration") as caught:
        convert(DEMO, tmp_path / "out", Settings(config_file=wrong_flags(tmp_path, **changes)))
    assert all(line in str(caught.value) for line in lines)
    assert len({line.split(":")[1].split()[0] for line in str(caught.value).splitlines()[1:-1]}) == len(
        str(caught.value).splitlines()[1:-1]
    )  # each variable once
    report = [line for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert report == sorted(report)
    assert not (tmp_path / "out").exists()


def shapes_of(folder):
    return {name: entry.shape for name, entry in TensorBundle(find_checkpoint(folder)).entries.items()}


def test_two_names_for_one_weight_are_an_error():
    shapes = shapes_of(DEMO) | {"cls/predictions/transform/dense/kernel": (16, 16)}
    config = convert_module.make_plan(DEMO).config
    with pytest.raises(ValueError, match=r"doubled: cls/predictions/transform/dense/kernel and transform/kernel"):
        match_names(shapes, config, "pretraining")


def test_a_checkpoint_of_another_model_is_refused():
    config = convert_module.make_plan(DEMO).config
    with pytest.raises(ValueError, match="not a whole BigBird checkpoint"):
        match_names({"resnet/conv1/kernel": (3, 3)}, config, "base")
    bert = {"bert/embeddings/word_embeddings": (80, 16), "bert/embeddings/LayerNorm/gamma": (16,)}
    with pytest.raises(ValueError, match=r"extra: bert/embeddings/LayerNorm/gamma") as caught:
        match_names(bert, config, "base")
    assert "missing: bert/encoder/LayerNorm/gamma" in str(caught.value)


def test_another_scope_is_found(tmp_path):
    config = convert_module.make_plan(DEMO).config
    shapes = {name.replace("bert/", "my_model/"): shape for name, shape in shapes_of(DEMO).items()}
    match = match_names(shapes, config, "pretraining")
    assert match.sources["pooler.kernel"] == "my_model/pooler/dense/kernel"


def test_an_existing_output_is_refused_then_replaced(tmp_path):
    out = tmp_path / "out"
    convert(DEMO, out)
    with pytest.raises(ValueError, match="exists already.*--overwrite"):
        convert(DEMO, out, Settings(head="base"))
    assert read_model_folder(out, "torch").head == "pretraining"
    convert(DEMO, out, Settings(head="base"), overwrite=True)
    assert read_model_folder(out, "torch").head == "base"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_error_half_way_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert_module, "read_back", fail)
    with pytest.raises(ValueError, match="writing failed: No space left on device"):
        convert(DEMO, tmp_path / "sub/out")
    assert not list((tmp_path / "sub").iterdir())


def test_a_file_size_limit_half_way_leaves_nothing(tmp_path):
    """A real write that fails in the middle, as on a full disk."""

    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from bigbird_port.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "convert", DEMO, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "writing failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["/proc/out", "/proc/no/such/out"])
def test_an_unwritable_folder_is_named(out):
    """/proc takes no files, not even from root."""
    with pytest.raises(ValueError, match=f"{out}: cannot be written: .*choose a folder that can"):
        convert(DEMO, Path(out))


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="cannot be written: Not a directory|cannot be written: File exists"):
        convert(DEMO, tmp_path / "file/out")
    with pytest.raises(ValueError, match="is not a folder"):
        convert(DEMO, tmp_path / "file", overwrite=True)


@pytest.mark.parametrize(
    ("file", "name"),
    [("torch/model.safetensors", "bert.pooler.bias"), ("flax/flax_model.msgpack", "bert/pooler/bias")],
)
def test_what_is_written_is_read_back(tmp_path, monkeypatch, file, name):
    """A disk that drops a bit is caught before the output appears."""
    read_back = convert_module.read_back

    def damage(plan, path, checksums):
        if path.as_posix().endswith(file):
            with path.open("r+b") as opened:
                opened.seek(plan.slots[name][0].offset + 12)
                byte = opened.read(1)
                opened.seek(-1, 1)
                opened.write(bytes([byte[0] ^ 1]))
        return read_back(plan, path, checksums)

    monkeypatch.setattr(convert_module, "read_back", damage)
    with pytest.raises(ValueError, match=r"bert.pooler.bias read back differs"):
        convert(DEMO, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_msgpack_is_flaxs(tmp_path):
    arrays = {"a/b/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "a/c": np.float16([1, 2])}
    write_arrays(tmp_path, FlaxMsgpackFormat("plain"), arrays)
    write_arrays(tmp_path, FlaxMsgpackFormat("chunked", chunk_bytes=8), arrays)  # flax splits arrays over 1 GiB
    for file in ("plain", "chunked"):
        for found in (
            flatten_dict(msgpack_restore((tmp_path / file).read_bytes()), sep="/"),
            read_flax_msgpack(tmp_path / file),
        ):
            assert set(found) == set(arrays)
            assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x81\xa1a\xc1", b"\x93\x01\x02\x03", b"\x81\xa1a\xc7\x01\x05x"])
def test_damaged_msgpack_is_named(tmp_path, data):
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"flax_model\.msgpack: not a Flax parameter file"):
        read_flax_msgpack(path)
