"""A fault is found where it is: module, attention head, query block; and nothing passes that was not compared."""

from __future__ import annotations

import dataclasses
import importlib

import click
import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

import models_torch.bigbird.encoder
import parity.witnesses.with_torch
from bigbird_port.cli.parity import DefaultGroup
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.heads import HEADS
from models_flax import FlaxBigBirdForPreTraining
from models_torch import BigBirdForPreTraining
from parity.run.compare import Scene, compare
from parity.run.conditions import Options
from parity.run.run import run_parity
from parity.witnesses.witness import Setting, pairs

CONFIG = BigBirdConfig(
    vocab_size=96, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
    max_position_embeddings=1024, block_size=16, num_random_blocks=2, initializer_range=0.2,
)  # fmt: skip
LENGTH = 528  # block-sparse, and not a multiple of much
SHORT = Options(length=48, witnesses=("torch", "reference"), losses=False)
SPARSE = Options(length=LENGTH, batch=1, witnesses=("torch", "reference"), losses=False)


def write(folder, config):
    for framework, cls in (("torch", BigBirdForPreTraining), ("flax", FlaxBigBirdForPreTraining)):
        cls.from_config(config, 0).save_pretrained(folder / framework)
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return write(tmp_path_factory.mktemp("walk"), CONFIG)


@pytest.fixture
def tamper(monkeypatch):
    """Return a function that changes every torch model after it was loaded."""

    def install(change, before_digest=True):
        cls = parity.witnesses.with_torch.TorchWitness
        init = cls.__init__

        def changed(self, model, setting):
            if before_digest:
                change(model)
            init(self, model, setting)
            if not before_digest:
                change(self.model)

        monkeypatch.setattr(cls, "__init__", changed)

    return install


def scale_output_kernel(model):
    model.base.encoder.layer[1].output.dense.weight.data[3, 5] += 0.3


def test_a_fault_is_located_in_its_layer_and_in_no_later_one(out, tamper):
    tamper(scale_output_kernel, before_digest=False)
    result = run_parity(out, ["base"], SHORT)
    (found,) = result.located
    assert (found.tap, found.module, found.value) == ("layer.1.output", "encoder.layer.1.output", "torch")
    assert "its input was the reference's own" in found.evidence
    off = {row.tap for row in result.failures if row.error == "accumulated"}
    assert {"layer.1.output", "layer.2.query", "layer.2.output", "pooler_output"} <= off  # it goes on from there
    assert not off & {"layer.0.output", "layer.1.intermediate"}
    assert {row.tap for row in result.failures if row.error == "local"} == {"layer.1.output"}


def test_without_local_runs_the_first_layer_that_is_off_is_named(out, tamper):
    tamper(scale_output_kernel, before_digest=False)
    options = Options(length=48, witnesses=("torch", "reference"), losses=False, local=False)
    result = run_parity(out, ["base"], options)
    assert [found.tap for found in result.located] == ["layer.1.output"]
    assert "its input is within tolerance" in result.located[0].evidence


def test_two_faults_are_both_located(out, tamper):
    def change(model):
        scale_output_kernel(model)
        model.base.encoder.layer[2].attention.self.key.bias.data[9] += 0.5

    tamper(change, before_digest=False)
    result = run_parity(out, ["base"], SHORT)
    assert [found.tap for found in result.located] == ["layer.1.output", "layer.2.key"]
    assert result.located[1].attention_heads == (1,)  # of 8 elements each


def test_a_wrong_random_block_is_named_with_its_head_and_block(out, monkeypatch):
    right = models_torch.bigbird.encoder.encoder_lists

    def wrong(config, seed, *rest):
        lists = right(config, seed, *rest)
        if seed == 1:
            blocks = lists.key_blocks.clone()
            first, second = blocks[2, 12, -2:].tolist()
            blocks[2, 12, -1] = next(b for b in range(2, 30) if b not in (first, second, 12, 13, 14))
            lists = lists._replace(key_blocks=blocks)
        return lists

    monkeypatch.setattr(models_torch.bigbird.encoder, "encoder_lists", wrong)
    result = run_parity(out, ["base"], SPARSE)
    (found,) = result.located
    assert (found.tap, found.module) == ("layer.1.context", "encoder.layer.1.attention.self")
    assert (found.attention_heads, found.query_blocks, found.positions) == ((2,), (13,), ("sparse",))
    assert "head 2: block 13" in found.sentence


def test_a_weight_that_changed_in_the_load_is_seen_by_its_digest(out, tamper):
    tamper(lambda model: model.base.pooler.bias.data.add_(1e-9))  # far too small for any tap
    result = run_parity(out, ["masked-lm"], SHORT)
    assert not list(result.failures)
    wrong = [check for check in result.checks if not check.passed]
    assert not wrong  # the reference has no pooler here, so that nothing says what it ought to be
    result = run_parity(out, ["base"], SHORT)
    wrong = {check.name: check.detail for check in result.checks if not check.passed}
    assert wrong.keys() == {"torch as loaded for base", "reference as loaded for base"}
    assert "1 of" in wrong["torch as loaded for base"]
    assert "pooler.bias" in wrong["torch as loaded for base"]
    assert not result.passed


def test_heads_share_a_walk_only_with_equal_weights(out, tamper):
    result = run_parity(out, ["base", "masked-lm"], SHORT)
    layers = [row for row in result.rows if row.tap.startswith("layer.")]
    assert {(row.head, row.shared_by) for row in layers} == {("base", ("masked-lm",))}
    assert {row.tap for row in result.rows if row.head == "masked-lm"} == {"transform", "logits"}

    def change(model):
        if model.head == "masked-lm":
            scale_output_kernel(model)

    tamper(change)
    result = run_parity(out, ["base", "masked-lm"], SHORT)
    layers = [row for row in result.rows if row.tap.startswith("layer.")]
    assert {(row.head, row.shared_by) for row in layers} == {("base", ()), ("masked-lm", ())}
    assert [found.head for found in result.located] == ["masked-lm"]


def test_the_failing_layers_tensors_are_kept(out, tamper, tmp_path):
    tamper(scale_output_kernel, before_digest=False)
    options = Options(length=48, witnesses=("torch", "reference"), losses=False, keep=tmp_path / "kept")
    result = run_parity(out, ["base"], options)
    assert list((tmp_path / "kept").iterdir()) == [result.kept]
    kept = safetensors.numpy.load_file(result.kept)
    assert kept["input"].shape == (2, 48, 32)
    difference = np.abs(kept["value.layer.1.output"] - kept["reference.layer.1.output"]).max()
    row = next(row for row in result.failures if row.error == "local")
    assert difference == pytest.approx(row.difference.max_abs)
    assert np.abs(kept["value.layer.1.intermediate"] - kept["reference.layer.1.intermediate"]).max() < 1e-5


ONE = np.ones((2, 3))
SCENE = Scene("base", "x", {"torch": Setting(), "flax": Setting()}, np.ones((2, 3), bool), 3)


def problems(value, reference, incomplete=(False, False)):
    rows = list(compare(SCENE, ("torch", "flax"), "accumulated", "stage", (value, reference), incomplete))
    assert rows
    return {row.tap: row.difference.problem for row in rows if not row.passed}


def test_what_was_not_compared_fails():
    tap, other = "layer.0.output", "layer.0.query"
    assert not problems({tap: ONE}, {tap: ONE})
    assert problems({tap: ONE}, {tap: ONE, other: ONE}) == {other: "torch has no such tap"}
    assert problems({tap: ONE, other: ONE}, {tap: ONE}) == {other: "flax has no such tap"}
    assert problems({tap: ONE}, {tap: ONE, other: ONE}, (True, False)) == {}  # a peer that has few taps
    assert problems({}, {tap: ONE}, (True, False)) == {"stage": "nothing to compare"}
    assert problems({}, {}) == {"stage": "nothing to compare"}
    assert problems({tap: ONE[:0]}, {tap: ONE[:0]}) == {tap: "nothing to compare"}
    assert "shapes differ" in problems({tap: ONE}, {tap: ONE.T})[tap]
    assert problems({tap: ONE * np.nan}, {tap: ONE * np.nan}) == {tap: "NaN or Inf"}


def test_a_tap_that_a_witness_skips_fails_the_run(out, monkeypatch):
    right = parity.witnesses.with_torch.TorchWitness.step

    def without_value(self, step, stream):
        taps, stream = right(self, step, stream)
        return {name: tap for name, tap in taps.items() if name != "layer.2.value"}, stream

    monkeypatch.setattr(parity.witnesses.with_torch.TorchWitness, "step", without_value)
    result = run_parity(out, ["base"], SHORT)
    assert {(row.tap, row.difference.problem) for row in result.failures} == {
        ("layer.2.value", "torch has no such tap")
    }
    assert not result.passed


def test_every_pair_of_witnesses():
    assert pairs(("torch", "flax")) == [("flax", "torch")]
    assert pairs(("torch", "flax", "reference")) == [("torch", "reference"), ("flax", "reference"), ("flax", "torch")]
    assert ("reference", "golden") in pairs(("golden", "torch", "reference"))
    assert pairs(("transformers", "reference")) == [("transformers", "reference")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"witnesses": ("torch",)}, "nothing to compare: found torch"),
        ({"witnesses": ("torch", "nobody")}, "unknown witness nobody"),
        ({"witnesses": ("torch", "golden")}, "give one with --golden FILE"),
        ({"gradients": True, "length": 1024, "batch": 64}, "choose a shorter --length"),
        ({"gradients": True, "dtype": "bfloat16"}, "a bound would excuse all; compare it in a wider dtype"),
        ({"lengths": (16, 2048)}, "at most max_position_embeddings = 1024"),
        ({"torch_device": "tpu"}, "torch does not run on tpu: give --flax-device tpu"),
        ({"flax_device": "nothing"}, "'nothing' names no device"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_runs(out, monkeypatch, options, message):
    monkeypatch.setattr("parity.run.run.load_witness", None)
    with pytest.raises(ValueError, match=message):
        run_parity(out, ["masked-lm"], Options(**{"length": 16, **options}))


def test_every_length_and_batch_is_a_pass(out):
    options = Options(lengths=(16, 40), batches=(1, 3), witnesses=("torch", "reference"), local=False)
    result = run_parity(out, ["token-classification"], options)
    assert [condition.name for condition in result.conditions] == ["1x16", "3x16", "1x40", "3x40"]
    assert result.passed
    assert {row.condition for row in result.rows} == {condition.name for condition in result.conditions}
    result.rows = [row for row in result.rows if row.condition != "3x16"]
    assert not result.passed
    assert result.missing == [("3x16", "token-classification")]


def test_gradients_and_decoding(out):
    options = Options(length=24, gradients=True, decoding=True, local=False)
    result = run_parity(out, ["causal-lm"], options)
    assert result.passed, [row.place for row in result.failures]
    taps = {error: {row.tap for row in result.rows if row.error == error} for error in ("gradient", "decoding")}
    assert taps["decoding"] == {"logits"}
    assert taps["gradient"] >= {"grad.embeddings.word_embeddings.embedding", "grad.layer.1.query", "grad.transform"}
    assert {row.value for row in result.rows if row.error == "gradient"} == {"torch", "flax"}


@pytest.mark.parametrize(("heads", "texts"), [(["base", "masked-lm"], 3), (["multiple-choice"], 6)])
@pytest.mark.quick("heads1-6")
def test_texts_one_after_the_other_are_the_same_texts(out, monkeypatch, tamper, heads, texts):
    """What large inputs are run as: the same taps, figures and findings as of the whole batch."""
    tamper(scale_output_kernel, before_digest=False)
    options = Options(length=48, batch=3, losses=False)
    whole = run_parity(out, heads, options)
    monkeypatch.setattr("parity.run.walk._TAPS_AT_ONCE", 0)
    portions = run_parity(out, heads, options)
    key = ("head", "shared_by", "value", "reference", "error", "tap", "attention_head", "tolerance")

    def figures(result):
        found = {}
        for row in result.rows:
            found.setdefault(tuple(getattr(row, name) for name in key), []).append(row)
        return found

    once, several = figures(whole), figures(portions)
    assert once.keys() == several.keys()
    for place, (row,) in once.items():
        rows = several[place]
        in_layers = row.error != "called" and row.tap.startswith(("embeddings", "layer."))
        wanted = [f"{i}:{i + 1}" for i in range(texts)] if in_layers else [None]
        assert [x.part and x.part.texts for x in rows] == wanted
        assert row.passed == all(x.passed for x in rows), place
        if not row.passed:
            assert max(x.difference.max_abs for x in rows) == pytest.approx(row.difference.max_abs, rel=1e-3)
    for result in (whole, portions):
        assert [(f.tap, f.value) for f in result.located] == [("layer.1.output", "torch")]


def test_a_fault_in_one_text_is_named(out, monkeypatch):
    """It shows in that text's rows alone, and what comes before it is good."""
    right = parity.witnesses.with_torch.TorchWitness.step

    def changed(self, step, stream):
        taps, stream = right(self, step, stream)
        if step.number == 1 and "second" in seen:
            taps[step.output] = taps[step.output] + np.float32(0.1)
        seen.append("second" if step.number == 2 else "first")
        return taps, stream

    seen = []
    monkeypatch.setattr(parity.witnesses.with_torch.TorchWitness, "step", changed)
    monkeypatch.setattr("parity.run.walk._TAPS_AT_ONCE", 0)
    result = run_parity(out, ["base"], dataclasses.replace(SHORT, local=False, batch=2))
    assert [(row.tap, row.part.texts) for row in result.failures] == [("layer.1.output", "1:2")]
    (found,) = result.located
    assert "texts 1:2" in found.sentence


def test_a_head_is_not_blamed_for_what_the_layers_did(out, tamper):
    """Heads that share a walk are told what it found of their input."""
    tamper(scale_output_kernel, before_digest=False)
    result = run_parity(out, ["base", "masked-lm", "sequence-classification"], dataclasses.replace(SHORT, local=False))
    assert {row.head for row in result.failures} == {"base", "masked-lm", "sequence-classification"}
    assert [found.tap for found in result.located] == ["layer.1.output"]


FIELDS = {
    "base": {"last_hidden_state", "pooler_output"},
    "pretraining": {"prediction_logits", "seq_relationship_logits"},
    "qa": {"start_logits", "end_logits"},
}


def called(result):
    return [row for row in result.rows if row.error == "called"]


def test_the_whole_call_is_compared_for_every_head(out):
    result = run_parity(out, list(HEADS), Options(length=48, losses=False, local=False))
    assert result.passed, [row.place for row in result.failures]
    found = {(row.head, row.value, row.reference, row.tap) for row in called(result)}
    everyone = [("torch", "reference"), ("flax", "reference"), ("flax", "torch")]
    assert found == {(head, *pair, tap) for head in HEADS for pair in everyone for tap in FIELDS.get(head, {"logits"})}
    for row in called(result):
        assert row.tolerance.key.endswith("/accumulated")  # measured, as every other
    without = run_parity(out, ["base"], Options(length=48, losses=False, local=False, called=False))
    assert without.passed
    assert not called(without)


@pytest.mark.parametrize(("framework", "name"), [("torch", "forward"), ("flax", "__call__")])
def test_a_path_that_only_the_call_takes_is_seen(out, monkeypatch, framework, name):
    """The encoder as a whole changes what it is given; the walk runs its layers, which are right."""
    owner = importlib.import_module(f"models_{framework}.bigbird.encoder").BigBirdEncoder
    right = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda self, x, *rest: right(self, x * 1.001, *rest))
    result = run_parity(out, ["base"], Options(length=48, witnesses=(framework, "reference"), losses=False))
    assert {(row.error, row.tap) for row in result.failures} == {("called", tap) for tap in FIELDS["base"]}
    assert not result.passed


def test_what_a_call_returns_for_padding_counts_for_nothing(out, monkeypatch):
    """A call may leave padding out; but no token."""
    right = parity.witnesses.with_torch.TorchWitness.call
    options = Options(length=48, witnesses=("torch", "reference"), losses=False, local=False)

    def with_zeros(keep):
        def call(self, inputs):
            found, ids = right(self, inputs), inputs["input_ids"]
            real = (ids != self.config.pad_token_id) & (np.arange(ids.shape[1]) < keep)
            return found | {"last_hidden_state": found["last_hidden_state"] * real[:, :, None]}

        monkeypatch.setattr(parity.witnesses.with_torch.TorchWitness, "call", call)

    with_zeros(48)
    assert run_parity(out, ["base"], options).passed
    with_zeros(47)
    assert [row.tap for row in run_parity(out, ["base"], options).failures] == ["last_hidden_state"]
    nothing = {"input_ids": np.zeros((2, 48), np.int32)}
    result = run_parity(out, ["base"], dataclasses.replace(options, length=None, inputs=nothing))
    assert [row.tap for row in called(result)] == ["pooler_output"]


def test_calls_in_portions_and_pieces_are_the_same_calls(out, monkeypatch):
    options = Options(length=48, batch=3, witnesses=("torch", "flax", "reference"), losses=False, local=False)
    whole = called(run_parity(out, ["masked-lm"], options))
    monkeypatch.setattr("parity.run.called._AT_ONCE", 48 * CONFIG.hidden_size)
    monkeypatch.setattr("parity.run.walk._SCORES_AT_ONCE", 3 * 96 * 20)
    pieces = called(run_parity(out, ["masked-lm"], options))
    assert {row.tap for row in whole} == {"logits"}
    assert {row.tap for row in pieces} == {"logits", "last_hidden_state"}
    assert {row.part.positions for row in pieces} == {"0:20", "20:40", "40:48"}
    assert all(row.passed for row in (*whole, *pieces))
    for value in ("torch", "flax"):
        largest = [
            max(row.difference.max_abs for row in rows if row.tap == "logits" and row.value == value)
            for rows in (whole, pieces)
        ]
        assert largest[0] == pytest.approx(largest[1], rel=1)


def test_long_scores_are_compared_in_pieces(out, monkeypatch):
    options = Options(length=48, witnesses=("torch", "reference"))
    whole = run_parity(out, ["pretraining"], options)
    monkeypatch.setattr("parity.run.walk._SCORES_AT_ONCE", 2 * 96 * 20)
    pieces = run_parity(out, ["pretraining"], options)
    assert pieces.passed

    def found(result, tap):
        return [row for row in result.rows if row.tap == tap and (row.value, row.error) == ("torch", "accumulated")]

    assert [row.part and row.part.positions for row in found(whole, "prediction_logits")] == [None]
    assert [row.part.positions for row in found(pieces, "prediction_logits")] == ["0:20", "20:40", "40:48"]
    assert len(found(pieces, "seq_relationship_logits")) == 1
    largest = max(row.difference.max_abs for row in found(pieces, "prediction_logits"))
    assert largest == pytest.approx(found(whole, "prediction_logits")[0].difference.max_abs, rel=0.5)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_transformers_leaves_the_original_at_the_first_sparse_context(tmp_path):
    pytest.importorskip("transformers")
    config = CONFIG.replace(
        block_size=64, num_random_blocks=3, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=2048
    )
    options = Options(
        lengths=(512, 768, 1024, 2048), batch=1, witnesses=("torch", "reference", "transformers"), losses=False
    )
    result = run_parity(write(tmp_path, config), ["masked-lm"], options)
    long = ["1x768", "1x1024", "1x2048"]
    assert {(row.value, row.condition) for row in result.failures} == {("transformers", name) for name in long}
    assert [found.condition for found in result.located] == long
    for found in result.located:
        assert (found.tap, found.value, found.positions) == ("layer.0.context", "transformers", ("sparse",))
        assert found.sentence.startswith("starts here: layer.0.context (encoder.layer.0.attention.self)")
    short = [row for row in result.rows if row.condition == "1x512"]
    assert {row.tap for row in short} >= {"embeddings", "layer.0.context", "layer.1.output", "transform", "logits"}


def test_a_command_beside_the_comparison():
    @click.group(cls=DefaultGroup)
    def group():
        """A group."""

    @group.command()
    @click.argument("out", required=False)
    @click.option("--head")
    def run(out, head):
        click.echo(f"run {out} {head}")

    @group.command()
    def faults():
        click.echo("faults")

    def said(*arguments):
        return CliRunner().invoke(group, arguments).output.strip()

    assert said("OUT", "--head", "qa") == "run OUT qa"
    assert said("--head", "qa", "OUT") == "run OUT qa"
    assert said() == "run None None"
    assert said("faults") == "faults"
    assert said("./faults") == "run ./faults None"


def test_the_walk_is_the_model(out):
    """Stage by stage or all at once: the same numbers, to the last bit in torch."""
    import torch

    from parity.witnesses.witness import Source, load_witness

    ids = np.arange(2 * 528, dtype=np.int32).reshape(2, 528) % 90 + 1
    source = Source(out, "pretraining", {}, 0)
    model = BigBirdForPreTraining.from_pretrained(out)
    with torch.no_grad():
        whole = model(torch.from_numpy(ids), output_taps=True)
    witness = load_witness("torch", source, Setting())
    taps, stream = witness.start({"input_ids": ids})
    for step in witness.config.family.steps(witness.config)[1:-1]:
        layer, stream = witness.step(step, stream)
        taps |= layer
    taps |= witness.finish(stream)
    expected = whole.taps | {"prediction_logits": whole.prediction_logits}
    expected |= {"seq_relationship_logits": whole.seq_relationship_logits}
    assert taps.keys() == expected.keys()
    for name, tap in expected.items():
        assert np.array_equal(taps[name], tap.numpy()), name
