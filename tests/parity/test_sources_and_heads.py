"""convert followed by parity is green: every kind of source, under every head that it can be asked for."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

from bigbird_port.cli import main
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.conversion.targets import Choices, carried_by, left_out
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.formats.filling import write_arrays
from bigbird_port.formats.flax.msgpack_reader import read_flax_msgpack
from bigbird_port.formats.flax.msgpack_writer import FlaxMsgpackFormat
from bigbird_port.models.folder import write_model_folder
from bigbird_port.schema.table import weights_of
from tests.conversion.matrix import _pickle
from tests.parity.run.test_run import parity

CONFIG = BigBirdConfig(
    vocab_size=80,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=128,
    block_size=16,
    num_labels=3,
    max_encoder_length=128,  # a flag of the original, so that all sources share what is compiled
)
ARGUMENTS = ("--length", "40", "--batch", "1", "--seed", "3")  # convert's seed is 0: what is lacking is drawn otherwise
CARRY_A_POOLER = ("masked-lm", "causal-lm", "token-classification")  # in torch, without using it


def drawn(config, head):
    """Canonical weights as of a trained model, each value drawn on its own."""
    rng = np.random.default_rng(0)
    found = {}
    for row in weights_of(config, head, "torch"):
        values = rng.standard_normal(row.shape(config)) * 0.15 + (row.init == "ones")
        found[row.name] = values.astype(np.float32)
    return found


def torch_folder(folder, head, pooler=None, config=CONFIG):
    """A folder that transformers writes; pooler: whether it has one, None for as its class has it."""
    folder.mkdir()
    write_model_folder(folder, drawn(config, head), config, head, "torch")
    path, prefix = folder / "model.safetensors", "" if head == "base" else "bert."
    arrays = safetensors.numpy.load_file(path)
    names = [f"{prefix}pooler.{leaf}" for leaf in ("weight", "bias")]
    if pooler is False:
        arrays = {name: x for name, x in arrays.items() if name not in names}
    elif pooler and names[0] not in arrays:
        rng, D = np.random.default_rng(1), config.hidden_size
        shapes = zip(names, ((D, D), (D,)), strict=True)
        arrays |= {name: rng.standard_normal(shape).astype(np.float32) * 0.15 for name, shape in shapes}
    safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})
    return folder


def source_of(kind, head, folder):
    """A source of one kind that holds a model of ``head``."""
    if kind == "torch":
        return torch_folder(folder / "torch", head)
    if kind in ("torch with a pooler", "torch without a pooler"):
        return torch_folder(folder / "torch", head, pooler="without" not in kind)
    if kind == "pickle":
        return _pickle(torch_folder(folder / "torch", head), folder / "bin")
    style = "original" if kind.startswith("tf") and head == "sequence-classification" else CONFIG.classifier_style
    config = CONFIG.replace(classifier_style=style)
    target = kind.partition(" ")[0]
    choices = Choices(tf_names="bert" if kind == "tf with BERT's names" else "current")
    made = torch_folder(folder / "made", head, config=config)
    convert(made, folder / "first", Settings(to=(target,), choices=choices))
    return folder / "first" / target


KINDS = (
    "torch",
    "torch with a pooler",
    "torch without a pooler",
    "pickle",
    "flax",
    "neutral",
    "tf",
    "tf with BERT's names",
)
IN_TF = ("base", "pretraining", "masked-lm", "causal-lm", "sequence-classification")


def all_sources():
    """Every kind with every head that it can hold."""
    for kind in KINDS:
        for head in HEADS:
            if kind == "torch with a pooler" and head != "qa":  # add_pooling_layer=True; all others have one anyway
                continue
            if kind == "torch without a pooler" and head != "base":  # add_pooling_layer=False
                continue
            if kind.startswith("tf") and head not in IN_TF:
                continue
            yield kind, head


def check(kind, head, heads, tmp_path):
    source = source_of(kind, head, tmp_path)
    convert(source, tmp_path / "out", Settings(head=None if not kind.startswith("tf") else head))
    chosen = [argument for name in heads for argument in ("--head", name)]
    result = parity(tmp_path / "out", *chosen, *ARGUMENTS)
    assert result.exit_code == 0, result.output
    assert f"over {len(heads)} of {len(heads)} heads, 0 failed" in result.output


@pytest.mark.parametrize(
    ("kind", "head", "heads"),
    [
        ("torch", "masked-lm", ("base",)),
        ("torch with a pooler", "qa", ("base",)),
        ("torch without a pooler", "base", ("base",)),
        ("pickle", "causal-lm", ("base",)),
        ("flax", "masked-lm", ("base", "sequence-classification")),
        ("neutral", "token-classification", ("base", "sequence-classification")),
        ("tf", "masked-lm", ("base",)),
        ("tf with BERT's names", "pretraining", ("base",)),
    ],
)
def test_convert_then_parity_passes(kind, head, heads, tmp_path):
    check(kind, head, heads, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "head"), list(all_sources()))
def test_convert_then_parity_passes_for_every_source_and_head(kind, head, tmp_path):
    check(kind, head, tuple(HEADS), tmp_path)


def change(path, name):
    """Change one value of a weight in a target's file."""
    if path.suffix == ".msgpack":
        arrays = {key: np.array(x) for key, x in read_flax_msgpack(path).items()}
        arrays[name].flat[0] += 0.5
        write_arrays(path.parent, FlaxMsgpackFormat(), arrays)
    else:
        arrays = safetensors.numpy.load_file(path)
        arrays[name].flat[0] += 0.5
        safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("head", "file", "name"),
    [
        ("masked-lm", "torch/model.safetensors", "bert.pooler.weight"),  # Flax has none of its own
        ("base", "torch/model.safetensors", "pooler.weight"),
        ("base", "flax/flax_model.msgpack", "pooler/kernel"),
    ],
)
def test_a_pooler_that_one_target_has_changed_fails(head, file, name, tmp_path):
    convert(torch_folder(tmp_path / "in", head), tmp_path / "out")
    change(tmp_path / "out" / file, name)
    result = parity(tmp_path / "out", "--head", "base", *ARGUMENTS)
    assert result.exit_code == 1, result.output
    assert f"{file.partition('/')[0]} weights: 1 of" in result.output
    assert "pooler" in next(line for line in result.output.splitlines() if line.startswith("first failure"))


@pytest.mark.parametrize("head", CARRY_A_POOLER)
def test_convert_names_what_a_target_leaves_out_and_counts_each(head, tmp_path):
    source = torch_folder(tmp_path / "in", head)
    arguments = ["convert", str(source), str(tmp_path / "out"), "--json", str(tmp_path / "report.json")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    in_torch, in_flax = (len(carried_by(target, CONFIG, head)) for target in ("torch", "flax"))
    assert in_torch == in_flax + 2
    assert len(read_flax_msgpack(tmp_path / "out/flax/flax_model.msgpack")) == in_flax
    said = f"{in_torch} variables converted, every bit read back from torch/ ({in_torch}) and flax/ ({in_flax})"
    assert said in result.output
    assert f"flax/ is without pooler.kernel, pooler.bias: its {head} class has no place for it" in result.output
    targets = json.loads((tmp_path / "report.json").read_text())["targets"]
    assert (targets["torch"]["weights"], targets["flax"]["weights"]) == (in_torch, in_flax)
    assert list(targets["flax"]["left_out"]) == ["pooler.kernel", "pooler.bias"]
    assert targets["torch"]["left_out"] == {}


@pytest.mark.parametrize("head", [head for head in HEADS if head not in CARRY_A_POOLER])
def test_other_heads_leave_nothing_out(head):
    assert left_out("flax", CONFIG, head) == left_out("torch", CONFIG, head) == {}


def test_flax_takes_the_pooler_from_beside_it_only_if_it_is_the_manifests(tmp_path):
    from models_flax import FlaxBigBirdModel

    convert(torch_folder(tmp_path / "in", "masked-lm"), tmp_path / "out")
    expected = safetensors.numpy.load_file(tmp_path / "out/torch/model.safetensors")["bert.pooler.weight"].T
    for folder in ("out", "out/flax"):
        model = FlaxBigBirdModel.from_pretrained(tmp_path / folder)
        assert model.initialised == []
        assert np.array_equal(np.asarray(model.params["pooler"]["kernel"]), expected)
    shutil.copytree(tmp_path / "out/flax", tmp_path / "alone")
    with pytest.raises(ValueError, match=r"no weights for pooler\.kernel, pooler\.bias, which the base head needs"):
        FlaxBigBirdModel.from_pretrained(tmp_path / "alone")
    change(tmp_path / "out/torch/model.safetensors", "bert.pooler.weight")
    with pytest.raises(ValueError, match=r"no weights for pooler\.kernel, which the base head needs"):
        FlaxBigBirdModel.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("witnesses", ["torch,reference", pytest.param("torch,flax,reference", marks=pytest.mark.slow)])
def test_question_answering_runs_with_one_token_type(witnesses, tmp_path):
    """Where nobody says of which type a token is, all are of the one that there is."""
    import torch

    import models_torch

    source = torch_folder(tmp_path / "in", "qa", config=CONFIG.replace(type_vocab_size=1))
    convert(source, tmp_path / "out")
    result = parity(tmp_path / "out", "--head", "qa", "--against", witnesses, *ARGUMENTS)
    assert result.exit_code == 0, result.output
    model, ids = models_torch.BigBirdForQuestionAnswering.from_pretrained(tmp_path / "out"), torch.arange(20)[None]
    derived, given = model(ids).end_logits, model(ids, token_type_ids=0 * ids).end_logits
    assert torch.equal(derived, given)
