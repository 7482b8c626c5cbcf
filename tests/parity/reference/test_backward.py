"""The reference's gradients against finite differences, the original's gradients and torch's in float64."""

import dataclasses

import numpy as np
import pytest
import torch

import models_torch
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.families.fields import HIDDEN_ACTS
from bigbird_port.schema.table import weights_of
from bigbird_port.schema.weights import to_framework
from models_torch.bigbird.losses import masked_lm_loss
from parity.given.golden import read_golden
from parity.given.inputs import for_head, make_inputs
from parity.reference.backward import backward, forward, propagate
from parity.reference.losses import loss_terms
from parity.reference.model import Reference
from tests.conftest import GOLDEN, require

DIFFERENCE_LIMIT = 1e-7  # times max(1, |slope|), central differences in float64; measured: 2e-9
AUTOGRAD_LIMIT = 1e-13  # of the gradients' largest magnitude; measured: 1.5e-14
STEP = 2e-6
LABELLED = [head for head in HEADS if head != "base"]

TINY = BigBirdConfig(
    vocab_size=70,
    hidden_size=8,
    num_attention_heads=2,
    num_hidden_layers=2,
    intermediate_size=12,
    max_position_embeddings=640,
    block_size=4,
    num_random_blocks=1,
    num_labels=3,
    layer_norm_eps=1e-3,
)
SPARSE = {"random_blocks": "transformers"}  # block-sparse from 8 blocks on; block 0 counts twice
FULL = {"attention_type": "original_full"}


def random_weights(config, head, seed=0):
    """Canonical float64 weights of the torch class, none of them 0 or 1."""
    rng = np.random.default_rng(seed)
    rows = weights_of(config, head, "torch")
    return {row.name: rng.normal(row.init == "ones", 0.4, row.shape(config)) for row in rows}


def build(head, **overrides):
    config = TINY.replace(**overrides)
    return Reference.of(config, head, random_weights(config, head))


def make_labels(config, head, inputs):
    rng = np.random.default_rng(1)
    ids = inputs["input_ids"]
    B, L = ids.shape[0], ids.shape[-1]
    if head == "qa":
        return {"start_positions": np.array([20, L + 5]), "end_positions": np.array([-2, 9])}
    if head in ("pretraining", "masked-lm", "causal-lm"):
        labels = np.where(rng.random(ids.shape) < 0.5, rng.integers(0, config.vocab_size, ids.shape), -100)
        return {"labels": labels} | ({"next_sentence_label": np.array([1, 0])} if head == "pretraining" else {})
    if head == "token-classification":
        return {"labels": np.where(rng.random((B, L)) < 0.5, rng.integers(0, config.num_labels, (B, L)), -100)}
    return {"labels": np.array([1, 0])}


def prepare(head, length, **overrides):
    reference = build(head, **overrides)
    inputs = for_head(make_inputs(reference.config, 2, length, 0), head, reference.config)
    return reference, inputs, make_labels(reference.config, head, inputs)


def loss_of(reference, inputs, labels):
    taps, _ = forward(reference, inputs)
    return reference.losses(taps, labels)


def assert_slopes(reference, loss, gradients, step=STEP):
    """The gradient of every weight, along a random direction of all its elements."""
    rng = np.random.default_rng(2)
    compared = 0
    for name, weight in reference.weights.items():
        direction = rng.standard_normal(weight.shape)
        values = [
            loss(dataclasses.replace(reference, weights={**reference.weights, name: weight + sign * step * direction}))
            for sign in (1, -1)
        ]
        slope = (values[0] - values[1]) / (2 * step)
        expected = (gradients[name] * direction).sum()
        assert slope == pytest.approx(expected, rel=DIFFERENCE_LIMIT, abs=DIFFERENCE_LIMIT), name
        compared += abs(slope) > 1e-4
    assert compared > 0.7 * len(reference.weights)  # those without influence: key biases, an unused pooler


@pytest.mark.parametrize("attention", [SPARSE, FULL], ids=["block_sparse", "full"])
@pytest.mark.parametrize("head", LABELLED)
@pytest.mark.quick(
    "pretraining-block_sparse",
    "multiple-choice-full",
    "qa-block_sparse",
    "causal-lm-full",
    "token-classification-block_sparse",
)
def test_every_weight_of_every_head_by_finite_differences(head, attention):
    reference, inputs, labels = prepare(head, 34, **attention)
    found = backward(reference, inputs, labels)
    assert found.loss == loss_of(reference, inputs, labels)
    assert_slopes(reference, lambda model: loss_of(model, inputs, labels), found.weights)


def test_a_gradient_that_is_off_by_a_thousandth_is_caught():
    """The negative control of the finite differences."""
    reference, inputs, labels = prepare("masked-lm", 34, **SPARSE)
    gradients = backward(reference, inputs, labels).weights
    name = "encoder.layer.0.attention.self.query.kernel"
    gradients[name] = gradients[name] * 1.001
    with pytest.raises(AssertionError, match="query.kernel"):
        assert_slopes(reference, lambda model: loss_of(model, inputs, labels), gradients)


@pytest.mark.parametrize(
    ("head", "overrides"),
    [
        *(("masked-lm", {"hidden_act": act}) for act in HIDDEN_ACTS),
        ("pretraining", {"use_bias": False, "rescale_embeddings": True}),
        ("sequence-classification", {"classifier_style": "original", "problem_type": "regression"}),
        ("sequence-classification", {"problem_type": "multi_label_classification"}),
    ],
)
@pytest.mark.quick("masked-lm-overrides1", "pretraining-overrides6", "sequence-classification-overrides8")
def test_every_activation_and_option_by_finite_differences(head, overrides):
    reference, inputs, labels = prepare(head, 34, **SPARSE, **overrides)
    if "problem_type" in overrides:
        labels = {"labels": np.array([[0.0, 1.0, 0.5], [1.0, 0.0, 0.0]])}
    found = backward(reference, inputs, labels)
    assert_slopes(reference, lambda model: loss_of(model, inputs, labels), found.weights)


def test_the_base_model_goes_by_gradients_of_its_outputs():
    reference, inputs, _ = prepare("base", 34, **SPARSE)
    rng = np.random.default_rng(4)
    taps, streams = forward(reference, inputs)
    factors = {name: rng.standard_normal(taps[name].shape) for name in ("layer.1.output", "pooler_output")}

    def loss(model):
        taps, _ = forward(model, inputs)
        return sum((taps[name] * factor).sum() for name, factor in factors.items())

    gradients, _ = propagate(reference, taps, streams, factors)
    assert_slopes(reference, loss, gradients)


def test_the_gradient_of_a_tap_by_finite_differences():
    """Hidden states fed into a later stage change the loss as the gradient of that tap says."""
    reference, inputs, labels = prepare("qa", 34, **SPARSE)
    found = backward(reference, inputs, labels)
    taps, streams = forward(reference, inputs)
    rng, step = np.random.default_rng(5), STEP
    for i, tap in enumerate(("embeddings", "layer.0.output", "layer.1.output")):
        direction = rng.standard_normal(taps[tap].shape)
        values = []
        for sign in (1, -1):
            stream = dataclasses.replace(streams[i], x=taps[tap] + sign * step * direction)
            for later in range(i, 2):
                _, stream = reference.layer(later, stream)
            values.append(reference.losses(reference.finish(stream), labels))
        slope = (values[0] - values[1]) / (2 * step)
        assert abs(slope) > 1e-4
        assert slope == pytest.approx((found.taps[tap] * direction).sum(), rel=DIFFERENCE_LIMIT, abs=DIFFERENCE_LIMIT)


def torch_gradients(reference, inputs, labels):
    """Loss, and gradients by torch name and by tap, of torch's model on the same float64 weights."""
    config, head = reference.config, reference.head
    model = getattr(models_torch, HEADS[head].class_name).from_config(config).double()
    arrays = to_framework(reference.weights, config, head, "torch")
    state = {name: torch.from_numpy(x) for name, x in arrays.items()}
    assert model.load_state_dict(state, strict=False).unexpected_keys == []
    arguments = {name: torch.from_numpy(x) for name, x in (inputs | labels).items()}
    output = model.eval()(**arguments, output_taps=True)
    scores = ("prediction_logits", "seq_relationship_logits", "logits", "start_logits", "end_logits")
    taps = output.taps | {name: getattr(output, name) for name in scores if hasattr(output, name)}
    parameters = {name: parameter for name, parameter in model.named_parameters() if name in arrays}
    wanted = parameters | {f"tap {name}": tap for name, tap in taps.items()}
    loss = output.loss
    if head == "causal-lm":  # the model's own loss is float32, as in transformers
        loss = masked_lm_loss(output.logits[:, :-1], arguments["labels"][:, 1:])
        assert loss.item() == pytest.approx(output.loss.item(), rel=1e-6)
    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    gradients = {
        name: np.zeros(x.shape) if gradient is None else gradient.numpy()
        for (name, x), gradient in zip(wanted.items(), found, strict=True)
    }
    weights = {name: gradients[name] for name in parameters}
    return loss.item(), arrays, weights, {name: gradients[f"tap {name}"] for name in taps}


@pytest.mark.parametrize(
    ("head", "overrides", "length"),
    [
        *((head, SPARSE, 34) for head in LABELLED),
        *((head, FULL, 21) for head in LABELLED),
        ("pretraining", {"max_encoder_length": 640, "block_size": 16, "num_random_blocks": 3}, 533),
        ("sequence-classification", {"classifier_style": "original"}, 34),
        ("masked-lm", {"use_bias": False, "rescale_embeddings": True, "hidden_act": "gelu", **SPARSE}, 34),
    ],
)
def test_every_gradient_is_that_of_torch(head, overrides, length):
    reference, inputs, labels = prepare(head, length, **overrides)
    found = backward(reference, inputs, labels)
    loss, arrays, weights, taps = torch_gradients(reference, inputs, labels)
    assert found.loss == pytest.approx(loss, rel=1e-12)
    assert weights.keys() == arrays.keys()
    ours = to_framework(found.weights, reference.config, head, "torch")
    scale = max(np.abs(x).max() for x in ours.values())
    for name, expected in weights.items():
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=AUTOGRAD_LIMIT * scale, err_msg=name)
    assert found.taps.keys() == taps.keys()
    for name, expected in taps.items():
        limit = AUTOGRAD_LIMIT * np.abs(expected).max()
        assert limit > 0, name
        np.testing.assert_allclose(found.taps[name], expected, rtol=0, atol=limit, err_msg=name)


def test_every_gradient_is_that_of_the_original(converted):
    """The gradient of mlm_loss + nsp_loss; that of a key's bias is 0 but for rounding."""
    golden = require(GOLDEN["tiny-pretrain"])
    (path,) = [path for path in golden.cases if path.stem == "len768-grads"]
    case = read_golden(path)
    overrides = {"max_encoder_length": case.max_encoder_length}
    reference = Reference.load(converted("tiny-pretrain"), "pretraining", overrides, 0)
    found = backward(reference, case.inputs, case.tensors)
    assert found.loss == pytest.approx(case.tensors["mlm_loss"].item() + case.tensors["nsp_loss"].item(), rel=2e-6)
    originals = {name.removeprefix("grad."): x for name, x in case.tensors.items() if name.startswith("grad.")}
    for row in weights_of(reference.config, "pretraining"):
        (name,) = [name for name in row.original if name.format(scope="bert") in originals]
        expected = originals.pop(name.format(scope="bert"))
        gradient = found.weights[row.name]
        assert gradient.shape == expected.shape
        if row.name.endswith("key.bias"):
            assert np.abs(expected).max() < 1e-8
            assert np.abs(gradient).max() < 1e-12
        else:
            np.testing.assert_allclose(gradient, expected, rtol=0, atol=2e-6 * np.abs(expected).max(), err_msg=row.name)
    assert not originals


def test_a_wrong_plan_misses_the_gradients_of_the_original(converted):
    """The negative control."""
    golden = require(GOLDEN["tiny-pretrain"])
    (path,) = [path for path in golden.cases if path.stem == "len768-grads"]
    case = read_golden(path)
    overrides = {"max_encoder_length": case.max_encoder_length, "random_blocks": "transformers"}
    reference = Reference.load(converted("tiny-pretrain"), "pretraining", overrides, 0)
    gradient = backward(reference, case.inputs, case.tensors).weights["encoder.layer.0.attention.self.query.kernel"]
    expected = case.tensors["grad.bert/encoder/layer_0/attention/self/query/kernel"]
    assert np.abs(gradient - expected).max() > 0.1 * np.abs(expected).max()


def test_a_loss_over_nothing_is_nan_and_has_no_gradient():
    reference, inputs, _ = prepare("token-classification", 34, **SPARSE)
    found = backward(reference, inputs, {"labels": np.full((2, 34), -100)})
    assert np.isnan(found.loss)
    assert not any(x.any() for x in found.weights.values())


@pytest.mark.parametrize(
    ("head", "labels", "message"),
    [
        ("base", {}, "the base head has no loss"),
        ("qa", {"start_positions": np.array([1, 2])}, "needs 'end_positions', found start_positions"),
        ("multiple-choice", {"labels": np.array([0, 2])}, r"expected 0 \.\. 1, or -100"),
        ("token-classification", {"labels": np.full((2, 34), -1)}, "labels are -1"),
    ],
)
def test_labels_that_do_not_fit_are_named(head, labels, message):
    reference, inputs, _ = prepare(head, 34, **SPARSE)
    taps, _ = forward(reference, inputs)
    with pytest.raises(ValueError, match=message):
        loss_terms(reference.config, head, taps, labels)
