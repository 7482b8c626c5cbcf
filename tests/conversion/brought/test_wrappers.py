"""Weights are found under any one prefix, in any container; several models are listed; the rest is accounted for."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.conversion.diff import diff
from bigbird_port.conversion.inspect_source import inspect
from bigbird_port.conversion.source import open_source
from bigbird_port.conversion.verify import verify
from bigbird_port.formats.open_store import open_store
from bigbird_port.formats.store import read
from bigbird_port.models.folder import read_model_folder
from bigbird_port.schema.reading.subtree import Wanted
from tests.conversion.brought.wrapped import (
    AVERAGES,
    HEAD,
    WEIGHTS,
    flax_tree,
    optimizer_state,
    original_arrays,
    torch_arrays,
    write_bin,
    write_bundle,
    write_config,
    write_export,
    write_msgpack,
    write_safetensors,
)

STATE = {"epoch": 3, "lr": 0.1, "name": "run", "best": None, "loops": {"fit": {"done": [1, 2]}}}


def lightning(prefix):
    return STATE | {"state_dict": torch_arrays(prefix=prefix), "optimizer_states": [{"state": {0: {"step": 1.0}}}]}


def train_state(params):
    return {"step": 7, "params": params, "opt_state": optimizer_state(AVERAGES)}


def slots(arrays):
    """What optimizers of any name keep: of the weight's shape, factors of it, a counter."""
    more = {f"{name}/MyOpt_m": values for name, values in arrays.items()}
    more |= {f"{name}/vr": values[..., 0].copy() for name, values in arrays.items()}
    more |= {f"{name}/count": np.array(1, np.float32) for name in arrays}
    return arrays | more | {"loss_scale": np.array(1024, np.float32), "global_step": np.array(3, np.int64)}


# Name: (what writes it, what it writes, a word of the line that says where the weights were).
SOURCES = {
    **{
        f"bin {prefix}": (write_bin, torch_arrays(prefix=prefix), repr(prefix))
        for prefix in ("module.", "_orig_mod.", "model.module._orig_mod.", "net.encoder_model.", "bert.")
    },
    "bin bare": (write_bin, torch_arrays() | {"epoch": 3}, ""),
    "bin state_dict": (write_bin, STATE | {"state_dict": torch_arrays()}, "'state_dict/'"),
    "bin model_state_dict": (write_bin, STATE | {"model_state_dict": torch_arrays()}, "'model_state_dict/'"),
    "bin deeper": (write_bin, {"a": {"model": torch_arrays(prefix="module.")}}, "'a/model/module.'"),
    "bin lightning": (write_bin, lightning("model."), "'state_dict/model.'"),
    "bin averaged": (write_bin, torch_arrays(prefix="module.") | {"n_averaged": np.array(4, np.int64)}, "'module.'"),
    "bin wrapped inside": (
        write_bin,
        {
            name.replace("bert.", "bert._orig_mod.").replace(".layer.0.", ".layer.0._fsdp_wrapped_module."): values
            for name, values in torch_arrays().items()
        },
        "names read without _fsdp_wrapped_module, _orig_mod",
    ),
    "safetensors module.": (write_safetensors, torch_arrays(prefix="module."), "'module.'"),
    "safetensors gamma": (
        write_safetensors,
        {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): values
            for name, values in torch_arrays().items()
        },
        "12 names LayerNorm.gamma",
    ),
    "flax bare": (write_msgpack, flax_tree(), ""),
    "flax params": (write_msgpack, {"params": flax_tree()}, "'params/'"),
    "flax params twice": (write_msgpack, {"params": {"params": flax_tree()}}, "'params/params/'"),
    "flax collections": (
        write_msgpack,
        {"params": flax_tree(), "batch_stats": {"mean": np.ones(3, np.float32)}},
        "'params/'",
    ),
    "flax train state": (write_msgpack, train_state(flax_tree()), "'params/'"),
    "flax train state, params twice": (write_msgpack, train_state({"params": flax_tree()}), "'params/params/'"),
    "flax old optimizer": (
        write_msgpack,
        {"optimizer": {"target": flax_tree(), "state": {"step": 1}}},
        "'optimizer/target/'",
    ),
    "tf scope": (write_bundle, original_arrays(prefix="tower0/"), "'tower0/'"),
    "tf deeper scope": (write_bundle, original_arrays(prefix="a/b/"), "'a/b/'"),
    "tf slots": (write_bundle, slots(original_arrays()), ""),
    "tf scope, slots": (write_bundle, slots(original_arrays(prefix="tower0/")), "'tower0/'"),
    "tf export": (write_export, original_arrays(), ""),
    "tf export scope": (write_export, original_arrays(prefix="tower0/"), "'tower0/'"),
}


def values_of(path, wanted=None):
    """Every weight of a source, by canonical name."""
    source = open_source(path, path / "config.json", wanted=wanted)
    return source, {name: source.weight(name, own) for name, own in source.match(HEAD).sources.items()}


def check_equal(found, expected=WEIGHTS):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, strict=True)


@pytest.mark.parametrize("case", SOURCES)
def test_every_wrapper_in_every_container(tmp_path, case):
    write, content, said = SOURCES[case]
    path = write(tmp_path / "in", content)
    source, found = values_of(path)
    check_equal(found)
    assert said in "\n".join(source.notes)
    assert bool(said) == any("found under" in note or "read " in note for note in source.notes)
    fates = source.match(HEAD).fates
    assert fates.keys() == open_store(path).store.tensors.keys()  # every name is accounted for
    assert {name for name, fate in fates.items() if fate.what == "converted"} == set(
        source.match(HEAD).sources.values()
    )


def test_reasons_for_what_lies_outside(tmp_path):
    def ignored(write, content):
        found = inspect(write(tmp_path / str(len(list(tmp_path.iterdir()))), content))
        assert not found.problems
        return found.ignored

    weights = len(WEIGHTS)
    assert ignored(write_bin, lightning("model.")) == {
        "training state (epoch)": 1,
        "training state (lr)": 1,
        "training state (name)": 1,
        "training state (best)": 1,
        "training state (loops)": 1,
        "optimizer state (optimizer_states)": 1,
    }
    assert ignored(write_msgpack, train_state(flax_tree())) == {
        "training state (step)": 1,
        "optimizer state (opt_state)": 2 * weights + 2,
    }
    collections = {"params": flax_tree(), "batch_stats": {"mean": np.ones(3, np.float32)}}
    assert ignored(write_msgpack, collections) == {"outside params (batch_stats)": 1}
    counts = {f"optimizer slot {slot}": weights for slot in ("MyOpt_m", "vr", "count")}
    assert ignored(write_bundle, slots(original_arrays())) == counts | {
        "training state (loss_scale)": 1,
        "training step counter": 1,
    }


TWO = {
    "bin": (write_bin, {"model": torch_arrays(), "ema": torch_arrays(AVERAGES)}, ("model", "ema")),
    "bin prefixes": (
        write_bin,
        torch_arrays(prefix="model.") | torch_arrays(AVERAGES, "ema_model."),
        ("model", "ema_model"),
    ),
    "bin module_ema": (
        write_bin,
        torch_arrays(prefix="module.") | torch_arrays(AVERAGES, "module_ema."),
        ("module", "module_ema"),
    ),
    "bin beside": (write_bin, torch_arrays() | torch_arrays(AVERAGES, "ema."), (".", "ema")),
    "flax": (write_msgpack, {"params": flax_tree(), "ema_params": flax_tree(AVERAGES)}, ("params", "ema_params")),
    "tf": (
        write_bundle,
        original_arrays(prefix="generator/") | original_arrays(AVERAGES, "discriminator/"),
        ("generator", "discriminator"),
    ),
}


@pytest.mark.parametrize("case", TWO)
def test_two_models_are_listed_and_one_is_chosen(tmp_path, case):
    write, content, (first, second) = TWO[case]
    path = write(tmp_path / "in", content)
    with pytest.raises(ValueError, match=r"it holds 2 models: .*choose one by --subtree NAME") as caught:
        open_source(path)
    assert f"{first} (" in str(caught.value)
    assert f"{second} (" in str(caught.value)
    check_equal(values_of(path, Wanted(first))[1])
    source, found = values_of(path, Wanted(second))
    check_equal(found, AVERAGES)
    assert any(
        repr(second) in note or repr(f"{second}.") in note or repr(f"{second}/") in note for note in source.notes
    )
    assert source.match(HEAD).fates.keys() == open_store(path).store.tensors.keys()
    if "ema" in second:
        check_equal(values_of(path, Wanted(ema=True))[1], AVERAGES)
    with pytest.raises(ValueError, match=rf"--subtree nothing: no part of that name.*{second}"):
        open_source(path, wanted=Wanted("nothing"))


def test_an_optimizer_alone_is_no_model(tmp_path):
    path = write_msgpack(tmp_path / "in", {"opt_state": optimizer_state(AVERAGES)})
    with pytest.raises(ValueError, match="an optimizer's state alone"):
        open_source(path)
    check_equal(values_of(path, Wanted("opt_state/0/mu"))[1], AVERAGES)  # it can still be asked for by name


@pytest.mark.parametrize("prefix", ["", "tower0/"])
def test_moving_averages_of_tensorflow(tmp_path, prefix):
    averages = {f"{name}/ExponentialMovingAverage": v for name, v in original_arrays(AVERAGES, prefix).items()}
    path = write_bundle(tmp_path / "in", original_arrays(prefix=prefix) | averages)
    source, found = values_of(path)
    check_equal(found)
    reasons = [fate.detail for fate in source.match(HEAD).fates.values() if fate.what == "ignored"]
    assert reasons == ["moving average (--ema takes it instead of the weight)"] * len(averages)
    source, found = values_of(path, Wanted(ema=True))
    check_equal(found, AVERAGES)
    assert f"{len(averages)} weights taken from their moving averages (--ema)" in source.notes
    assert source.match(HEAD).fates.keys() == open_store(path).store.tensors.keys()
    with pytest.raises(ValueError, match="--ema: it holds no moving averages"):
        open_source(write_bundle(tmp_path / "bare", original_arrays()), wanted=Wanted(ema=True))


def without(arrays, *parts):
    return {name: values for name, values in arrays.items() if not any(part in name for part in parts)}


def test_a_near_miss_is_refused_in_its_own_terms(tmp_path):
    """Where the word embeddings lack, the closest part is named; where they are there, what else lacks."""
    content = {
        "a": {"model": without(torch_arrays(), "word_embeddings", "decoder")},
        "b": torch_arrays()["cls.predictions.bias"],
    }
    with pytest.raises(
        ValueError, match=r"Closest is a/model: it holds \d+ weights of BigBird and lacks embeddings.word_embed"
    ):
        open_source(write_bin(tmp_path / "1", content)).match(HEAD)
    content = original_arrays(prefix="tower0/")
    with pytest.raises(ValueError, match=r"Closest is tower0: .* lacks embeddings.word_embeddings.embedding\."):
        open_source(write_bundle(tmp_path / "2", without(content, "word_embeddings")))
    content = {"state_dict": without(torch_arrays(prefix="model."), "layer.1.output.dense.weight")}
    with pytest.raises(
        ValueError, match=r"under state_dict/model: .*\n.*missing: bert.encoder.layer.1.output.dense.weight"
    ):
        open_source(write_bin(tmp_path / "3", content)).match(HEAD)
    with pytest.raises(ValueError, match="expected embeddings.word_embeddings.weight, which is not there$"):
        open_source(write_bin(tmp_path / "4", {"other.weight": np.ones(3, np.float32)})).match(HEAD)


def test_weights_of_the_head_outside_are_not_made_up(tmp_path):
    """A base model under one name and its head under another: what would be initialised is there, so it is refused."""
    arrays = {f"lm.{name}" if name.startswith("cls.") else f"big.{name}": v for name, v in torch_arrays().items()}
    path = write_bin(tmp_path / "in", arrays)
    with pytest.raises(ValueError, match=r"outside big, under names(.|\n)*perhaps lm\.cls\.seq_relationship\.weight"):
        open_source(path).match(HEAD)
    assert open_source(path).match("base").sources  # which needs none of them


def test_what_is_no_slot_is_extra(tmp_path):
    wrong = {"bert/embeddings/word_embeddings/odd": np.ones((3, 5), np.float32)}
    with pytest.raises(ValueError, match=r"extra: bert/embeddings/word_embeddings/odd \[3, 5\]"):
        open_source(write_bundle(tmp_path / "1", original_arrays() | wrong)).match(HEAD)
    with pytest.raises(ValueError, match=r"extra: loss/table \[2\]"):
        open_source(write_bundle(tmp_path / "2", original_arrays() | {"loss/table": np.ones(2, np.float32)})).match(
            HEAD
        )


def test_one_name_twice_under_two_spellings(tmp_path):
    both = torch_arrays() | {"bert.embeddings.LayerNorm.gamma": np.ones(8, np.float32)}
    with pytest.raises(ValueError, match=r"LayerNorm\.weight and .*LayerNorm\.gamma both mean"):
        open_source(write_bin(tmp_path / "in", both))


def test_head_decides_for_a_class_of_the_users_own(tmp_path):
    path = write_safetensors(tmp_path / "in", torch_arrays())
    write_config(path, "MyOwnBigBird")
    with pytest.raises(ValueError, match="MyOwnBigBird"):
        open_source(path)
    source = open_source(path, head=HEAD)
    assert (source.head, source.match(HEAD).fills) == (HEAD, {})
    assert "MyOwnBigBird, which is no class of BigBird: --head says pretraining" in source.notes[0]


def test_every_command_takes_the_same_part(tmp_path):
    """convert says it and records it; verify --source, diff and inspect find it again, and see another part differ."""
    path = write_bin(tmp_path / "in", {"model": torch_arrays(), "ema": torch_arrays(AVERAGES), "epoch": 3})
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["convert", str(path), str(out), "--subtree", "model"])
    assert done.exit_code == 0, done.output
    assert "weights found under 'model/': that prefix is taken off their names" in done.output
    assert f"{len(torch_arrays(AVERAGES))} ignored: moving averages (ema)" in done.output
    assert "1 ignored: training state (epoch)" in done.output
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["source"]["subtree"], manifest["source"]["ema"]) == ("model", False)
    assert manifest["source_names"]["epoch"] == {"fate": "ignored", "detail": "training state (epoch)"}
    assert verify(out, path).passed
    assert not verify(out, path, subtree="ema").passed
    assert diff(path, out, subtree_a="model").same()
    assert not diff(path, out, subtree_a="ema").same()
    assert inspect(path, subtree="ema").subtree == "ema"
    assert "it holds 2 models" in inspect(path).problems[0]
    for command in (["convert", str(path), str(tmp_path / "no")], ["diff", str(path), str(out)]):
        failed = CliRunner().invoke(main, command)
        assert (failed.exit_code, "choose one by --subtree" in failed.output) == (2, True)


def test_averages_are_recorded_and_verified(tmp_path):
    averages = {f"{name}/ExponentialMovingAverage": v for name, v in original_arrays(AVERAGES).items()}
    path = write_bundle(tmp_path / "in", original_arrays() | averages)
    convert(path, tmp_path / "out", Settings(ema=True))
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["source"]["ema"] is True
    assert verify(tmp_path / "out", path).passed
    assert diff(path, tmp_path / "out", ema_a=True).same()
    assert not diff(path, tmp_path / "out").same()


def test_models_load_what_is_wrapped(tmp_path):
    """What from_pretrained reads: the same part, under today's names."""
    gamma = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma"): v for name, v in torch_arrays(prefix="module.").items()
    }
    check_equal(read_model_folder(write_bin(tmp_path / "1", {"state_dict": gamma, "epoch": 1}), "torch").weights)
    check_equal(read_model_folder(write_msgpack(tmp_path / "2", train_state(flax_tree())), "flax").weights)
    with pytest.raises(ValueError, match="it holds 2 models: .*or convert it with --subtree"):
        read_model_folder(write_bin(tmp_path / "3", {"a": torch_arrays(), "b": torch_arrays()}), "torch")


def test_sharded_flax_and_flax_in_safetensors(tmp_path):
    flat = open_store(write_msgpack(tmp_path / "whole", flax_tree())).store
    arrays = {name: read(flat, name) for name in flat.tensors}
    path = write_safetensors(
        tmp_path / "dots", {name.replace("/", "."): v for name, v in arrays.items()}, {"format": "flax"}
    )
    check_equal(values_of(path)[1])
    names = list(arrays)
    shards = {"flax_model-00001-of-00002.msgpack": names[::2], "flax_model-00002-of-00002.msgpack": names[1::2]}
    for file, held in shards.items():
        write_msgpack(tmp_path / "shards", {name: arrays[name] for name in held}, file)
    index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
    (tmp_path / "shards" / "flax_model.msgpack.index.json").write_text(json.dumps(index))
    check_equal(values_of(tmp_path / "shards")[1])
    (tmp_path / "shards" / "flax_model-00002-of-00002.msgpack").unlink()
    with pytest.raises(ValueError, match="flax_model-00002-of-00002.msgpack"):
        open_source(tmp_path / "shards")


def test_a_step_of_orbax_with_several_items(tmp_path):
    import orbax.checkpoint as ocp

    step = write_config(tmp_path / "run" / "1000")
    for item, tree in (("params", flax_tree()), ("state", {"opt_state": [{"mu": flax_tree(AVERAGES)}], "step": 3})):
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(step / item, tree)
    source, found = values_of(step)
    check_equal(found)
    assert "'params/'" in source.notes[0]
    reasons = {fate.detail for fate in source.match(HEAD).fates.values() if fate.what == "ignored"}
    assert reasons == {"optimizer state (opt_state)", "training state (state)"}
