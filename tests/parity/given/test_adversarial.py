"""Each case is what its name says, and both frameworks agree with the reference on all of them."""

from collections import Counter
from unittest import mock

import numpy as np
import pytest

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.schema.weights import from_framework, initial_arrays
from parity.given.adversarial import adversarial_inputs, large_norm
from parity.measure.metrics import measure
from parity.measure.tolerances import tolerance_for
from parity.reference.backward import forward
from parity.reference.model import Reference
from parity.run.conditions import Options
from parity.run.run import run_parity
from parity.witnesses.whole import run_whole
from parity.witnesses.with_torch import TorchWitness
from parity.witnesses.witness import make_witness

L, W = 200, 16
CONFIG = BigBirdConfig(
    vocab_size=40,
    hidden_size=16,
    num_attention_heads=2,
    num_hidden_layers=2,
    intermediate_size=24,
    max_position_embeddings=256,
    block_size=W,
    num_random_blocks=1,
    initializer_range=0.2,
    random_blocks="transformers",  # sparse at 200 tokens
)
CASES = adversarial_inputs(CONFIG, L, 0)
TEXTS = 5  # of the largest case; with as many texts in all, Flax compiles once


def test_cases_are_what_they_are_called():
    lengths = {name: inputs["attention_mask"].sum(axis=1).tolist() for name, inputs in CASES.items()}
    assert lengths["one-token"] == [L, 1, 1]
    assert CASES["one-token"]["attention_mask"][2, -1] == 1
    assert lengths["mixed-lengths"] == [1, W - 1, W, W + 1, L]
    for name in ("full", "large-norm", "one-id", "one-type", "vocabulary-ends"):
        assert lengths[name] == [L, L]
    ends, begins = CASES["split-blocks"]["attention_mask"]
    assert (ends[0], ends[-1], begins[0], begins[-1]) == (1, 0, 0, 1)
    assert ends.sum() % W
    assert (L - begins.sum()) % W
    assert np.unique(CASES["one-type"]["token_type_ids"]).tolist() == [CONFIG.type_vocab_size - 1]
    assert len(np.unique(CASES["one-id"]["input_ids"])) == 1
    assert np.unique(CASES["vocabulary-ends"]["input_ids"]).tolist() == [0, CONFIG.vocab_size - 1]


@pytest.mark.parametrize("length", [1, 2, W - 1, W, W + 1, 2 * W + 1, 256])
@pytest.mark.parametrize("block_size", [1, 16])
def test_every_length_gives_every_case_with_a_real_token_in_each_text(length, block_size):
    config = CONFIG.replace(block_size=block_size, type_vocab_size=1)
    for name, inputs in adversarial_inputs(config, length, 3).items():
        assert set(inputs) == {"input_ids", "attention_mask", "token_type_ids"}
        for array in inputs.values():
            assert (array.dtype, array.shape[1], array.min() >= 0) == (np.int32, length, True)
        assert inputs["attention_mask"].any(axis=1).all(), name
        assert inputs["input_ids"].max() < config.vocab_size
        assert (inputs["input_ids"][inputs["attention_mask"] == 0] == config.pad_token_id).all()


def test_the_seed_decides_and_a_length_too_long_is_refused():
    again, other = adversarial_inputs(CONFIG, L, 0), adversarial_inputs(CONFIG, L, 1)
    assert all(np.array_equal(CASES[name]["input_ids"], again[name]["input_ids"]) for name in CASES)
    assert not np.array_equal(CASES["full"]["input_ids"], other["full"]["input_ids"])
    for length in (0, 257):
        with pytest.raises(ValueError, match=r"length is \d+, expected 1 .. 256"):
            adversarial_inputs(CONFIG, length, 0)


def weights_of(config):
    return from_framework(initial_arrays(config, "masked-lm", "torch", 0)[0], config, "masked-lm", "torch")


def test_large_norm_scales_the_words_alone():
    weights = weights_of(CONFIG)
    before = {name: x.copy() for name, x in weights.items()}
    scaled = large_norm(weights, 64)
    changed = [name for name in weights if not np.array_equal(scaled[name], before[name])]
    assert changed == ["embeddings.word_embeddings.embedding"]
    assert np.array_equal(scaled[changed[0]], before[changed[0]] * 64)
    assert all(np.array_equal(weights[name], before[name]) for name in weights)
    with pytest.raises(ValueError, match="beyond float32"):
        large_norm(weights, 1e40)
    with pytest.raises(ValueError, match=r"embeddings\.word_embeddings\.embedding is not among the weights"):
        large_norm({}, 2)


@pytest.mark.parametrize(("name", "factor"), [*((name, 1) for name in CASES), ("full", 64)])
def test_both_frameworks_are_the_reference_on_what_is_real(name, factor):
    inputs = {field: np.resize(x, (TEXTS, L)) for field, x in CASES[name].items()}
    weights = large_norm(weights_of(CONFIG), factor)
    truth, _ = forward(Reference.of(CONFIG, "masked-lm", weights), inputs)
    real_BL = inputs["attention_mask"].astype(bool)
    for framework in ("torch", "flax"):
        found = run_whole(make_witness(framework, CONFIG, "masked-lm", weights), inputs).taps
        assert set(found) == set(truth)
        for tap, reference in truth.items():
            value = found[tap]
            if tap.endswith((".query", ".key", ".value")):
                value, reference = value.swapaxes(1, 2), reference.swapaxes(1, 2)
            tolerance = tolerance_for(tap, "float32", "cpu", "accumulated", None if "layer" in tap else 2)
            d = measure(value, reference, tolerance, real_BL)
            assert d.passed, (tap, d)


def test_a_mask_that_is_forgotten_is_seen():
    """The other way round: what the cases are for."""
    inputs, weights = CASES["split-blocks"], weights_of(CONFIG)
    truth, _ = forward(Reference.of(CONFIG, "masked-lm", weights), inputs)
    wrong = inputs | {"attention_mask": np.ones_like(inputs["attention_mask"])}
    found = run_whole(make_witness("torch", CONFIG, "masked-lm", weights), wrong).taps
    real_BL = inputs["attention_mask"].astype(bool)
    tolerance = tolerance_for("layer.0.context", "float32", "cpu", "accumulated")
    assert not measure(found["layer.0.context"], truth["layer.0.context"], tolerance, real_BL).passed


def run(out, head, *witnesses, **options):
    plain = {"local": False, "called": False, "length": 24, "adversarial": True}
    return run_parity(out, [head], Options(witnesses=witnesses, **plain | options))


def test_gradients_pass_where_choices_might_be_tied(converted):
    """Of a text that repeats one word, choices must still differ: a loss that is the same for all weights has none."""
    result = run(converted("mini-pretrain"), "multiple-choice", "torch", "reference", gradients=True)
    assert result.passed, list(result.failures)
    rows = Counter(row.condition for row in result.rows if row.error == "gradient")
    assert set(rows) == {condition.name for condition in result.conditions}
    assert len(rows) == len(CASES)
    assert min(rows.values()) > 40
    scales = [row.difference.scale for row in result.rows if row.tap == "grad.encoder.layer.0.output.dense.kernel"]
    assert len(scales) == len(CASES)
    assert min(scales) > 1e-6  # not rounding alone


def test_every_witness_scales_its_words(converted):
    """Words alone: 64 times the embeddings before their norm; one witness that does not is found where it does not."""
    out = converted("mini-pretrain")
    result = run(out, "masked-lm", "torch", "flax", "reference", "transformers")
    assert result.passed, list(result.failures)
    scales = {row.condition: row.difference.scale for row in result.rows if row.tap == "embeddings_prenorm"}
    assert scales["2x24 large-norm"] > 20 * scales["2x24 full"]
    assert result.conditions[-1].inputs.startswith("2 x 24 tokens (large-norm: word embeddings 64 times as large; ")
    with mock.patch.object(TorchWitness, "scale_words"):
        wrong = run(out, "masked-lm", "torch", "reference")
    assert {row.condition for row in wrong.failures} == {"2x24 large-norm"}
    assert {row.tap for row in wrong.failures} >= {"embeddings_prenorm", "logits"}


@pytest.mark.slow
def test_every_head_passes_with_gradients_and_decoding(converted):
    for head in HEADS:
        witnesses = ("torch", "flax", "reference")
        result = run(converted("mini-pretrain"), head, *witnesses, length=80, gradients=True, decoding=True)
        assert result.passed, list(result.failures)
