"""The Flax losses: against torch's functions, against the original's losses and gradients.

Legend: B batch, L length, V vocabulary, C labels.
"""

import jax
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict
from jax import numpy as jnp
from torch.nn import functional

import models_flax
from bigbird_port.schema.layout import change_layout
from bigbird_port.schema.table import dims, weights_of
from models_flax.bigbird import losses
from parity.given.golden import read_golden
from tests.conftest import GOLDEN, require

LIMIT = 1e-6
RNG = np.random.default_rng(0)


def random_logits(*shape):
    return RNG.standard_normal(shape).astype(np.float32) * 3


def assert_same_loss(ours, theirs, arrays, limit=LIMIT):
    """Value and gradient with respect to the first of ``arrays``, for ours in JAX and theirs in torch."""
    value, gradient = jax.value_and_grad(lambda x: ours(x, *map(jnp.asarray, arrays[1:])))(jnp.asarray(arrays[0]))
    logits = torch.from_numpy(arrays[0]).requires_grad_()
    expected = theirs(logits, *map(torch.from_numpy, arrays[1:]))
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=limit, atol=limit)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=0, atol=limit)
    assert np.abs(logits.grad.numpy()).max() > 1e-3


LABELS = np.array([[3, -100, 5, 0], [-100, -100, 8, 1]])


def cross_entropy(logits, labels):
    return functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1).long())


@pytest.mark.parametrize("loss", [losses.masked_lm_loss, losses.token_classification_loss])
def test_a_label_of_minus_100_does_not_count(loss):
    assert_same_loss(loss, cross_entropy, (random_logits(2, 4, 9), LABELS))


def test_causal_labels_are_shifted():
    def shifted(logits, labels):
        return cross_entropy(logits[:, :-1], labels[:, 1:])

    assert_same_loss(losses.causal_lm_loss, shifted, (random_logits(2, 4, 9), LABELS))


@pytest.mark.parametrize("loss", [losses.next_sentence_loss, losses.multiple_choice_loss])
def test_classes_and_choices(loss):
    for labels in (np.array([1, 0, 1]), np.array([[1], [-100], [1]])):
        assert_same_loss(loss, cross_entropy, (random_logits(3, 2), labels))


@pytest.mark.parametrize(
    ("labels", "count", "problem", "theirs"),
    [
        (np.array([2, 0, 1]), 3, None, cross_entropy),
        (np.array([2, 0, 1]), 3, "single_label_classification", cross_entropy),
        (random_logits(3), 1, None, lambda x, y: functional.mse_loss(x.squeeze(), y)),
        (random_logits(3, 4), 4, "regression", functional.mse_loss),
        (np.eye(3, 4, dtype=np.float32), 4, None, functional.binary_cross_entropy_with_logits),
        (
            np.eye(3, 4, dtype=np.float32),
            4,
            "multi_label_classification",
            functional.binary_cross_entropy_with_logits,
        ),
    ],
)
def test_classification_by_problem_type(labels, count, problem, theirs):
    def ours(logits, labels):
        return losses.classification_loss(logits, labels, count, problem)

    assert_same_loss(ours, theirs, (random_logits(3, count), labels))


def test_large_logits_do_not_overflow_in_multi_label_classification():
    logits = jnp.asarray([[1e4, -1e4]])
    np.testing.assert_allclose(losses.classification_loss(logits, jnp.asarray([[0.0, 1.0]]), 2, None), 1e4)


@pytest.mark.parametrize(("starts", "ends"), [([1, 4], [3, 0]), ([9, 4], [3, -7]), ([[2], [60]], [[5], [5]])])
def test_answer_positions_outside_are_clamped_and_ignored(starts, ends):
    def theirs(start, end, starts, ends):
        starts, ends = (x.reshape(-1).clamp(0, 6) for x in (starts, ends))
        return (
            functional.cross_entropy(start, starts, ignore_index=6)
            + functional.cross_entropy(end, ends, ignore_index=6)
        ) / 2

    arrays = (random_logits(2, 6), random_logits(2, 6), np.array(starts), np.array(ends))
    assert_same_loss(losses.question_answering_loss, theirs, arrays)


def test_a_mean_over_nothing_is_nan_as_in_torch():
    assert np.isnan(losses.masked_lm_loss(jnp.zeros((1, 2, 3)), jnp.full((1, 2), -100)))


@pytest.mark.parametrize(
    ("loss", "arrays", "message"),
    [
        (losses.masked_lm_loss, ((1, 2, 5), [[1, 5]]), r"labels at \[0, 1\] is 5, expected 0 \.\. 4, or -100"),
        (losses.masked_lm_loss, ((1, 2, 5), [[1, -1]]), r"labels at \[0, 1\] is -1"),
        (losses.masked_lm_loss, ((1, 2, 5), [[1, 2, 3]]), r"labels has shape \[1, 3\], expected \[1, 2\]"),
        (losses.causal_lm_loss, ((1, 2, 5), [[1.0, 2.0]]), "labels has dtype float32"),
        (losses.next_sentence_loss, ((2, 2), [0, 2]), r"next_sentence_label at \[1\] is 2"),
        (losses.multiple_choice_loss, ((2, 3), [0, 3]), r"labels at \[1\] is 3"),
        (losses.token_classification_loss, ((1, 2, 3), [[0, 7]]), r"labels at \[0, 1\] is 7"),
    ],
)
def test_labels_out_of_range_are_named(loss, arrays, message):
    with pytest.raises(ValueError, match=message):
        loss(jnp.zeros(arrays[0]), jnp.asarray(arrays[1]))


def test_class_labels_of_another_shape_are_named():
    with pytest.raises(ValueError, match=r"labels has shape \[2\], expected \[2, 3\]"):
        losses.classification_loss(jnp.zeros((2, 3)), jnp.zeros(2), 3, "multi_label_classification")
    with pytest.raises(ValueError, match=r"labels at \[0\] is 3"):
        losses.classification_loss(jnp.zeros((2, 3)), jnp.asarray([3, 0]), 3, None)


def test_answer_positions_of_another_shape_are_named():
    logits = jnp.zeros((2, 6))
    with pytest.raises(ValueError, match=r"end_positions has shape \[3\], expected \[2\]"):
        losses.question_answering_loss(logits, logits, jnp.zeros(2, int), jnp.zeros(3, int))
    with pytest.raises(ValueError, match="start_positions has dtype float32"):
        losses.question_answering_loss(logits, logits, jnp.zeros(2), jnp.zeros(2, int))


def golden_model(converted, name, case_name, head_class):
    path = next(path for path in require(GOLDEN[name]).cases if path.stem == case_name)
    case = read_golden(path)
    model = head_class.from_pretrained(converted(name), max_encoder_length=case.max_encoder_length)
    return case, model


def test_gradients_are_the_original_s(converted):
    """Every parameter, under its variable's name: the gradient of the sum of both pretraining losses."""
    case, model = golden_model(converted, "tiny-pretrain", "len768-grads", models_flax.FlaxBigBirdForPreTraining)
    tensors = case.tensors
    ids = jnp.asarray(case.inputs["input_ids"])
    positions, tokens = jnp.asarray(tensors["masked_lm_positions"]), jnp.asarray(tensors["masked_lm_ids"])
    next_sentence = jnp.asarray(tensors["next_sentence_labels"])

    def loss(params):
        output = model(**case.inputs, params=params)
        logits = jnp.take_along_axis(output.prediction_logits, positions[..., None], axis=1)
        sentence = losses.next_sentence_loss(output.seq_relationship_logits, next_sentence.reshape(-1))
        masked = losses.masked_lm_loss(logits, tokens) * tokens.size / (tokens.size + 1e-5)  # its denominator
        return masked + sentence, (masked, sentence)

    with jax.default_matmul_precision("highest"):
        (_, (masked, sentence)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(model.params)
    np.testing.assert_allclose(masked, tensors["mlm_loss"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(sentence, tensors["nsp_loss"], rtol=0, atol=1e-5)
    found = flatten_dict(gradients, sep="/")
    golden = {name.removeprefix("grad."): x for name, x in tensors.items() if name.startswith("grad.")}
    seen = set()
    for row in weights_of(model.config, "pretraining", "flax"):
        names = [name.format(scope="bert") for name in row.original]
        (name,) = (name for name in names if name in golden)
        expected = change_layout(golden[name], row.axes, row.flax_axes, dims(model.config))
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found[row.flax], expected, rtol=0, atol=1e-5 * scale, err_msg=name)
        seen.add(name)
    assert seen == set(golden)
    assert len(found) == len(golden)
    assert ids.shape[1] == 768


def test_the_classifier_s_loss_is_the_original_s(converted):
    golden = require(GOLDEN["tiny-classifier"])
    case = read_golden(golden.cases[0])
    model = models_flax.FlaxBigBirdForSequenceClassification.from_pretrained(
        converted("tiny-classifier"), max_encoder_length=case.max_encoder_length
    )
    assert model.config.classifier_style == "original"
    logits = jax.jit(lambda params: model(**case.inputs, params=params).logits)(model.params)
    found = losses.classification_loss(logits, jnp.asarray(case.tensors["labels"]), 3, None)
    np.testing.assert_allclose(found, case.tensors["cls_loss"], rtol=0, atol=1e-5)
