"""The float64 reference of BigBird-Pegasus against the original's outputs, gradients and decodes."""

import dataclasses

import numpy as np
import pytest

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from bigbird_port.schema.initialise import initial_value
from bigbird_port.schema.table import weights_of
from parity.given.golden import derived_taps, read_golden, tensors_as_taps
from parity.given.inputs import for_head, make_inputs
from parity.measure.losses import make_labels
from parity.reference.pegasus.backward import backward
from parity.reference.pegasus.model import Reference
from parity.run.writing import searches_of
from parity.witnesses.whole import run_whole
from parity.witnesses.with_reference import ReferenceWitness
from tests.conftest import GOLDEN, require
from tests.models.pegasus_cases import CASES, CLOSE, WITH_GRADIENTS, Case

RELEASED = [
    pytest.param("tiny-pegasus-released-like", path, id=f"released-like-{path.stem}")
    for path in GOLDEN["tiny-pegasus"].cases[:1]
]
FEW = [case for case in CASES if case.id == "mini-pegasus-len528-general-plan-padded"]
SMALL = BigBirdPegasusConfig(
    vocab_size=23,
    d_model=8,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=12,
    decoder_ffn_dim=12,
    max_position_embeddings=64,
    max_decoder_length=9,
    block_size=2,
    num_random_blocks=1,
    random_blocks="transformers",
    activation_function="gelu_new",
    init_std=0.4,
)
COUPLED = {"norm_type": "postnorm", "couple_encoder_decoder": True, "use_bias": True, "scale_embedding": False}


def load(converted, name, path):
    """The reference of a golden folder under a case's length, and the case."""
    require(GOLDEN[name])
    case = read_golden(path)
    return Reference.load(converted(name), case.head, {"max_encoder_length": case.max_encoder_length}, 0), case


def errors(reference, case):
    """Tap -> largest error over all that golden cases hold: the encoder's on real tokens, the decoder's everywhere."""
    taps = run_whole(ReferenceWitness(reference), case.inputs).taps
    taps |= derived_taps(taps, case, reference.config)
    real, found = case.inputs["input_ids"] != 0, {}
    for name, golden in tensors_as_taps(case).items():
        if name.endswith(".log_probs"):
            continue  # the original's second scoring
        place = case.family.place(name, case.head)
        where = real if place and place.tap.names[:2] == ("batch", "length") else slice(None)
        found[name] = np.abs(taps[name][where] - golden[where]).max()
    return found


@pytest.mark.parametrize(("name", "path"), [*CASES, *RELEASED])
def test_every_golden_tensor_is_met(converted, name, path):
    reference, case = load(converted, name, path)
    found = errors(reference, case)
    assert {tap: error for tap, error in found.items() if error > CLOSE} == {}
    scores = ("encoder.output", "logits", "loss", "loss_no_smoothing", "target_log_probs")
    assert max(found[tap] for tap in scores) < 2e-6
    assert len(found) >= 28
    assert "rand_attn.1" in found or reference.config.max_encoder_length <= 512


@pytest.mark.parametrize(
    "change",
    [
        {"layer_norm_eps": 1e-5},
        {"scale_embedding": False},
        {"random_blocks": "transformers"},
        {"activation_function": "gelu_new"},
        {"label_smoothing": 0.2},
    ],
    ids=str,
)
def test_another_function_is_noticed(converted, change):
    """The negative control."""
    reference, case = load(converted, *FEW[0].values)
    wrong = dataclasses.replace(reference, config=reference.config.replace(**change))
    if "label_smoothing" in change:
        labels = {"labels": case.tensors["target_ids"]}
        taps = run_whole(ReferenceWitness(wrong), case.inputs).taps
        assert abs(wrong.losses(taps, labels) - case.tensors["loss"][0]) > 1e-2
        return
    assert max(errors(wrong, case).values()) > CLOSE


@pytest.mark.parametrize(("name", "path"), CASES)
@pytest.mark.quick("mini-pegasus-len528-general-plan-padded", "tiny-coupled-len400-full")
def test_what_the_original_writes_is_written(converted, name, path):
    reference, case = load(converted, name, path)
    T, searches = case.tensors["target_ids"].shape[1], searches_of(case, reference.config.vocab_size)
    assert len(searches) == 1 + sum(name.endswith(".beams") for name in case.tensors)
    for search in searches:
        found = reference.write(case.inputs, T, search.beams, search.alpha)
        if search.beams == 1:
            assert (found.ids == case.tensors["greedy.ids"]).all()
            continue
        golden = f"beam{search.beams}_alpha{search.alpha}"
        assert (found.ids == case.tensors[f"{golden}.beams"]).all(), golden
        assert (found.ids[:, 0] == case.tensors[f"{golden}.ids"]).all(), golden
        assert np.abs(found.scores - case.tensors[f"{golden}.scores"]).max() < CLOSE * T, golden


@pytest.mark.parametrize(("name", "path"), WITH_GRADIENTS)
def test_golden_gradients(converted, name, path):
    """Of every trainable variable; in a coupled model those of both uses are added."""
    reference, case = load(converted, name, path)
    found = backward(reference, case.inputs, {"labels": case.tensors["target_ids"]})
    assert abs(found.loss - case.tensors["loss"][0]) < 2e-6
    golden = Case(path)
    scope, largest, count = case.family.scope(reference.config), golden.largest_gradient(), 0
    for row in weights_of(reference.config, case.head, None):
        expected = golden.tensors[f"grad.{row.original[0].replace('{scope}', scope)}"]
        own = found.weights[row.name].reshape(expected.shape)
        assert np.abs(own - expected).max() < 2e-6 * largest, row.name
        count += 1
    assert count == sum(name.startswith("grad.") for name in golden.tensors)


def build(head, **changes):
    config = SMALL.replace(**changes)
    rows = {row.name: row for side in ("torch", "flax") for row in weights_of(config.for_head(head), head, side)}
    rng = np.random.default_rng(1)
    weights = {
        name: initial_value(row, config, 0).astype(np.float64) + 0.2 * (row.init != "normal") * rng.normal(size=1)
        for name, row in rows.items()
    }
    return Reference.of(config, head, weights)


@pytest.mark.parametrize("changes", [{}, COUPLED], ids=["prenorm", "coupled"])
@pytest.mark.parametrize("head", ["conditional-generation", "sequence-classification", "qa", "causal-lm"])
@pytest.mark.quick("conditional-generation-coupled", "sequence-classification-prenorm", "causal-lm-prenorm")
def test_every_weight_of_every_head_by_finite_differences(head, changes):
    if head == "causal-lm" and changes:
        changes = changes | {"couple_encoder_decoder": False}
    reference = build(head, **changes)
    inputs = for_head(make_inputs(reference.config, 2, 16, 0), head, reference.config)
    labels, rng = make_labels(reference.config, head, inputs, 0), np.random.default_rng(2)
    found, moved, step = backward(reference, inputs, labels), 0, 1e-6

    def loss(weights):
        other = dataclasses.replace(reference, weights=weights)
        return other.losses(run_whole(ReferenceWitness(other), inputs).taps, labels)

    assert found.loss == loss(reference.weights)
    for name in reference.weights:
        x = reference.weights[name]
        direction = rng.standard_normal(x.shape)
        ends = [{**reference.weights, name: x + sign * step * direction} for sign in (1, -1)]
        slope = (loss(ends[0]) - loss(ends[1])) / (2 * step)
        expected = (found.weights[name] * direction).sum()
        assert slope == pytest.approx(expected, rel=1e-5, abs=1e-7), name
        moved += abs(slope) > 1e-4
    unused = sum(".encdec" in name for name in reference.weights) if head == "causal-lm" else 0
    assert moved > 0.7 * (len(reference.weights) - unused)  # those without influence: key biases
