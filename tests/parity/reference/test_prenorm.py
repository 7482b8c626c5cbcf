"""The reference's prenorm encoder: against the original, by finite differences, and both frameworks against it."""

from pathlib import Path

import numpy as np
import pytest

from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.models.folder import read_folder_config
from bigbird_port.schema.table import weights_of
from parity.faults.setup import read_setup
from parity.given.golden import derived_taps, golden_taps, read_golden
from parity.reference.backward import backward, forward
from parity.reference.losses import loss_terms
from parity.reference.model import Reference
from parity.reference.rounding import Arithmetic, arithmetic
from parity.run.conditions import Options
from parity.run.run import run_parity
from parity.witnesses.with_transformers import settings_of
from tests.conftest import GOLDEN, PRENORM, require
from tests.parity.reference.test_backward import FULL, SPARSE, assert_slopes, loss_of, prepare

LIMIT = 1e-5  # of a tensor's largest magnitude
CASES = [
    *(pytest.param(path, id=path.stem) for path in GOLDEN[PRENORM].cases or [Path("absent")]),
]
# The same numbers under the names that a postnorm model has: its LayerNorms behind the sublayers, and first of all.
_POSTNORM = (
    ("encoder.LayerNorm", "embeddings.LayerNorm"),
    ("attention.self.LayerNorm", "attention.output.LayerNorm"),
    ("intermediate.LayerNorm", "output.LayerNorm"),
)


def load(converted, path, **overrides):
    require(GOLDEN[PRENORM])
    case = read_golden(path)
    overrides = {"max_encoder_length": case.max_encoder_length} | overrides
    return case, Reference.load(converted(PRENORM), case.head, overrides, 0)


def with_gradients():
    """The case that holds the original's gradients."""
    return require(GOLDEN[PRENORM]).checkpoint / "cases/len656-general-plan-grads.safetensors"


def errors(case, reference):
    """Golden tensor -> largest error on real tokens, over its largest magnitude."""
    taps, _ = forward(reference, case.inputs)
    derived = derived_taps(taps, case, reference.config)
    taps |= {name: x for name, x in derived.items() if not name.startswith("rand_attn.")}
    golden, _ = golden_taps(case, list(taps))
    real, found = case.inputs["input_ids"] != 0, {}
    for tap, expected in golden.items():
        value = taps[tap]
        if value.shape[:2] == real.shape:
            value, expected = value[real], expected[real]
        found[tap] = np.abs(value - expected).max() / np.abs(expected).max()
    return found, taps


@pytest.mark.parametrize("path", CASES)
def test_every_golden_tensor_is_met(converted, path):
    case, reference = load(converted, path)
    found, taps = errors(case, reference)
    parts = {f"layer.{i}.{part}" for i in range(2) for part in ("context", "attention_output", "output")}
    scores = {"mlm_log_probs", "nsp_log_probs", "mlm_loss", "nsp_loss"}
    assert found.keys() >= parts | scores | {"embeddings", "sequence_output", "pooler_output"}
    assert {tap: error for tap, error in found.items() if not error < LIMIT} == {}
    for name, term in loss_terms(reference.config, reference.head, taps, case.tensors).items():
        assert term.value == pytest.approx(case.tensors[name].item(), rel=LIMIT)


def as_postnorm(weights):
    """The weights under a postnorm model's names."""
    found = {}
    for name, x in weights.items():
        for ours, theirs in _POSTNORM:
            name = name.replace(ours, theirs) if ours in name else name
        found[name] = x
    return found


def test_the_postnorm_order_is_far_off(converted):
    """The negative control: the same weights, in the other order."""
    case, reference = load(converted, with_gradients())
    config = reference.config.replace(norm_type="postnorm")
    other = Reference.of(config, reference.head, as_postnorm(dict(reference.weights.items())))
    assert other.weights.keys() == {row.name for row in weights_of(config, reference.head, "flax")}
    found, _ = errors(case, other)
    assert found["layer.1.output"] > 1e4 * LIMIT
    assert found["mlm_log_probs"] > 1e4 * LIMIT


def test_every_gradient_is_that_of_the_original(converted):
    """Of mlm_loss + nsp_loss; that of a key's bias is 0 but for rounding."""
    case, reference = load(converted, with_gradients())
    found = backward(reference, case.inputs, case.tensors)
    originals = {name.removeprefix("grad."): x for name, x in case.tensors.items() if name.startswith("grad.")}
    largest = max(np.abs(x).max() for x in originals.values())
    for row in weights_of(reference.config, "pretraining"):
        (name,) = [name for name in row.original if name.format(scope="bert") in originals]
        expected, gradient = originals.pop(name.format(scope="bert")), found.weights[row.name]
        scale = largest if row.name.endswith("key.bias") else np.abs(expected).max()
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=LIMIT * scale, err_msg=row.name)
    assert not originals


@pytest.mark.parametrize("attention", [SPARSE, FULL], ids=["block_sparse", "full"])
@pytest.mark.parametrize("head", [name for name, head in HEADS.items() if not head.no_loss])
@pytest.mark.quick("sequence-classification-block_sparse", "qa-full")
def test_every_weight_of_every_head_by_finite_differences(head, attention):
    reference, inputs, labels = prepare(head, 34, norm_type="prenorm", **attention)
    found = backward(reference, inputs, labels)
    assert "encoder.LayerNorm.gamma" in found.weights
    assert found.loss == loss_of(reference, inputs, labels)
    assert_slopes(reference, lambda model: loss_of(model, inputs, labels), found.weights)


def test_a_residual_that_is_dropped_is_caught_by_finite_differences(monkeypatch):
    """The negative control: the gradient of what goes around a sublayer is lost."""
    monkeypatch.setattr("parity.reference.backward.PassBack.joined", lambda self, d_residual, d_branch: d_branch)
    reference, inputs, labels = prepare("masked-lm", 34, norm_type="prenorm", **SPARSE)
    gradients = backward(reference, inputs, labels).weights
    with pytest.raises(AssertionError, match="embedding"):
        assert_slopes(reference, lambda model: loss_of(model, inputs, labels), gradients)


def test_rounding_moves_every_tap_and_every_gradient_by_its_unit():
    """Each sum that no LayerNorm rounds is rounded itself: nothing stays as it was, and nothing moves far."""
    reference, inputs, labels = prepare("masked-lm", 34, norm_type="prenorm", **SPARSE)
    (exact, _), exact_gradients = forward(reference, inputs), backward(reference, inputs, labels)
    with arithmetic(Arithmetic("float32", np.random.default_rng(0))):
        (moved, _), gradients = forward(reference, inputs), backward(reference, inputs, labels)
    pairs = [(moved[name], exact[name]) for name in exact]
    pairs += [(gradients.taps[name], exact_gradients.taps[name]) for name in exact_gradients.taps]
    for found, expected in pairs:
        share = np.sqrt(np.square(found - expected).mean() / np.square(expected).mean())
        assert 2e-8 < share < 1e-5


HEAD_OF_CALLS = "masked-lm"
FRAMEWORKS = ["torch", pytest.param("flax", marks=pytest.mark.slow)]  # Flax compiles


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_parity_judges_what_was_converted(converted, framework):
    """Taps, losses, calls and gradients; the LayerNorm behind the last layer is a stage, and qa has one of its own."""
    options = Options(length=40, batch=1, gradients=True, witnesses=(framework, "reference"))
    result = run_parity(converted(PRENORM), [HEAD_OF_CALLS, "qa"], options)
    assert result.passed, [row for row in result.rows if not row.passed][:3]
    assert {(row.error, row.tap) for row in result.rows} >= {
        ("gradient", "grad.qa_classifier.output.LayerNorm.gamma"),
        ("accumulated", "sequence_output"),
        ("local", "sequence_output"),
        ("called", "logits"),
        ("loss", "loss"),
        ("gradient", "grad.sequence_output"),
        ("gradient", "grad.embeddings"),
        ("gradient", "grad.encoder.LayerNorm.gamma"),
        ("gradient", "grad.encoder.layer.1.intermediate.LayerNorm.beta"),
    }


def test_the_ways_of_users_take_the_last_layer_norm_into_account(converted):
    """A call returns its output in place of the last layer's; a decoder of this kind attends to no encoder."""
    conditions = ("mixed-lengths", "cross-attention")
    own = {"max_encoder_length": 528}
    options = Options(length=40, batch=1, witnesses=("torch", "reference"), conditions=conditions, overrides=own)
    result = run_parity(converted(PRENORM), [HEAD_OF_CALLS, "causal-lm"], options)
    assert result.passed, [row for row in result.rows if not row.passed][:3]
    found = {row.tap for row in result.rows if row.condition == "mixed-lengths"}
    assert found >= {"embeddings", "layer.0.output", "sequence_output"}
    assert "layer.1.output" not in found
    assert "cross-attention (a prenorm encoder has no cross-attention)" in result.not_compared["causal-lm"]


@pytest.mark.slow  # Flax compiles every head
def test_parity_judges_every_head_in_both_frameworks(converted):
    result = run_parity(converted(PRENORM), list(HEADS), Options(length=40, batch=1, gradients=True))
    assert result.passed, [row for row in result.rows if not row.passed][:3]
    assert {head for row in result.rows for head in row.heads} == set(HEADS)


def test_a_call_without_the_last_layer_norm_is_red(converted, monkeypatch):
    """The negative control of the stage."""

    def skipped(self, encoded):
        return encoded

    monkeypatch.setattr("models_torch.bigbird.encoder.BigBirdEncoder.finish", skipped)
    options = Options(length=40, batch=1, witnesses=("torch", "reference"))
    result = run_parity(converted(PRENORM), [HEAD_OF_CALLS], options)
    assert {(row.error, row.tap) for row in result.rows if not row.passed} == {("called", "logits")}


def test_what_is_of_postnorm_models_alone_says_so(converted):
    out = converted(PRENORM)
    with pytest.raises(ValueError, match="norm_type is prenorm, and faults are made and searched for in postnorm"):
        read_setup(out, HEAD_OF_CALLS)
    with pytest.raises(ValueError, match="has no norm_type prenorm: leave transformers out of --against"):
        settings_of(read_folder_config(out, "torch"))
