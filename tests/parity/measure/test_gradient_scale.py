"""What errors of gradients are relative to: hand-made cases, and how float32 comes out where the loss is steep."""

import numpy as np
import pytest

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.schema.weights import from_framework, initial_arrays
from parity.given.adversarial import large_norm
from parity.given.inputs import make_inputs
from parity.measure.gradient_scale import gradient_scale, steepness
from parity.measure.losses import make_labels
from parity.measure.metrics import measure
from parity.measure.tolerances import tolerance_for
from parity.reference.backward import backward
from parity.reference.model import Reference
from parity.witnesses.witness import make_witness

PREFIX = "encoder.layer.0.attention.self"


def test_gradients_are_measured_against_the_terms_they_are_differences_of():
    one, two, three = np.ones(4), np.full((4, 4), 2.0), np.full((4, 4), 3.0)
    gradients = {
        f"{PREFIX}.key.bias": one * 1e-12,
        f"{PREFIX}.key.kernel": two,
        f"{PREFIX}.value.kernel": three,
        f"{PREFIX}.value.bias": one,
        "x.LayerNorm.beta": one,
        "x.LayerNorm.gamma": two,
        "x.embedding": two,
    }
    expected = {f"{PREFIX}.key.bias": 3, f"{PREFIX}.key.kernel": 3, f"{PREFIX}.value.bias": 3,
                "x.LayerNorm.beta": 2, "x.LayerNorm.gamma": 2, "x.embedding": 2}  # fmt: skip
    for name, scale in expected.items():
        assert np.allclose(gradient_scale(name, gradients), scale), name


def test_rows_of_gradients_that_are_larger_count_for_themselves():
    """Where the loss looks at one position: [B, L, D] with L = 5, position 2 a thousand times the others."""
    rng = np.random.default_rng(0)
    output_BLD = rng.standard_normal((2, 5, 8))
    output_BLD[:, 2] *= 1000
    context_BLNH, query_BNLH = np.ones((2, 5, 2, 4)), np.full((2, 2, 5, 4), 1e-3)
    context_BLNH[:, 2] = 50
    key_BNLH, value_BNLH = np.full((2, 2, 5, 4), 1e-3), np.ones((2, 2, 5, 4))
    value_BNLH[:, 1, 3] = 7
    gradients = {"layer.0.output": output_BLD, "layer.0.context": context_BLNH, "layer.0.query": query_BNLH,
                 "layer.0.key": key_BNLH, "layer.0.value": value_BNLH}  # fmt: skip
    scale = gradient_scale("layer.0.output", gradients)
    assert scale.shape == (2, 5, 1)
    assert np.allclose(scale[:, 2, 0], np.sqrt((output_BLD[:, 2] ** 2).mean(axis=-1)))
    assert gradient_scale("layer.0.query", gradients)[0, :, 2].tolist() == [[50], [50]]
    assert gradient_scale("layer.0.key", gradients)[0, 1, 3] == 7
    wrong = output_BLD + 1e-3
    small = measure(wrong, output_BLD, 1.0, scale=scale)
    plain = np.abs(wrong - output_BLD) / np.maximum(scale, np.abs(output_BLD))
    assert small.would_pass == pytest.approx(plain.max())
    assert small.worst_index[1] != 2
    assert measure(wrong, output_BLD, 1.0, scale=scale[:, :, 0].max()).would_pass < small.would_pass


def test_the_decoders_bias_counts_each_word_with_its_scores():
    """Word 1: two positions cancel. Word 2: nothing is left but what rounding leaves, and it has no terms."""
    scores_BLV = np.zeros((1, 4, 5))
    scores_BLV[0, :, 1] = 3, -3, 4, -4
    gradients = {"cls.predictions.bias": np.full(5, 1e-9), "logits": scores_BLV}
    scale_V = gradient_scale("cls.predictions.bias", gradients)
    np.testing.assert_allclose(scale_V, [1e-9, np.sqrt(50), 1e-9, 1e-9, 1e-9])


def test_scores_below_one_nat_leave_a_loss_as_it_is():
    assert steepness({"logits": np.full(5, 0.2)}) == 1
    assert steepness({"start_logits": np.full(5, 0.2), "end_logits": np.full((5, 3), -40.0)}) == 40
    assert steepness({"start_logits": np.array([2.0, -2.0, 2.0, 2 - 1e6, -1e6])}) == 2


CONFIG = BigBirdConfig(
    vocab_size=40,
    hidden_size=32,
    num_attention_heads=2,
    num_hidden_layers=2,
    intermediate_size=48,
    max_position_embeddings=64,
    initializer_range=0.2,
    attention_type="original_full",
)


@pytest.mark.parametrize("head", ["masked-lm", "causal-lm"])
def test_gradients_are_off_by_as_many_times_as_the_loss_is_steep(head):
    """torch in float32 with words 64 times as large, whose scores are: within the law, and far beyond without it."""
    weights = from_framework(initial_arrays(CONFIG, head, "torch", 0)[0], CONFIG, head, "torch")
    inputs = make_inputs(CONFIG, 2, 64, seed=0)
    labels = make_labels(CONFIG, head, inputs, 0)
    for factor, steep in ((1, 1), (64, 60)):
        large = large_norm(weights, factor)
        truth = backward(Reference.of(CONFIG, head, large), inputs, labels)
        assert steep <= steepness(truth.scores) < steep * 1.3
        witness = make_witness("torch", CONFIG, head, large)
        found = witness.backward(inputs, labels)
        with_law = worst_excess(truth, found.weights | found.taps, steepness(truth.scores))
        without = worst_excess(truth, found.weights | found.taps, 1.0)
        assert with_law < 1
        assert (without > 2) == (factor > 1)


def worst_excess(truth, found, steep):
    terms = truth.weights | truth.taps
    tolerances = {
        name: tolerance_for(f"grad.{name}", "float32", "cpu", "gradient", CONFIG.num_hidden_layers, steepness=steep)
        for name in terms
        if name in found and name != "logits"
    }
    assert len(tolerances) > 40
    return max(
        measure(found[name], terms[name], tolerance, scale=gradient_scale(name, terms)).excess
        for name, tolerance in tolerances.items()
    )
