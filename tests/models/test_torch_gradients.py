"""Losses and gradients of the torch models against those of the original code."""

import numpy as np
import pytest
import torch

import models_torch
from bigbird_port.schema.table import weights_of
from bigbird_port.schema.weights import to_framework
from models_torch.bigbird.losses import masked_lm_loss
from parity.given.golden import read_golden
from tests.conftest import GOLDEN, require

LIMIT = 1e-6
PRETRAINING = ("mini-pretrain", "tiny-pretrain", "tiny-block16")


def labelled(case):
    """The case's arguments for a pretraining model: ids, types, and the labels that its positions name."""
    labels = np.full(case.inputs["input_ids"].shape, -100)
    np.put_along_axis(labels, case.tensors["masked_lm_positions"], case.tensors["masked_lm_ids"], axis=1)
    arguments = {name: torch.from_numpy(x) for name, x in case.inputs.items()}
    next_sentence = torch.from_numpy(case.tensors["next_sentence_labels"])
    return arguments | {"labels": torch.from_numpy(labels), "next_sentence_label": next_sentence}


def run(converted, name, path):
    case = read_golden(path)
    out = converted(name)
    model = models_torch.BigBirdForPreTraining.from_pretrained(out, max_encoder_length=case.max_encoder_length)
    return case, model, model(**labelled(case))


@pytest.mark.parametrize("name", PRETRAINING)
def test_the_pretraining_losses_are_the_originals(converted, name):
    require(GOLDEN[name])
    for path in GOLDEN[name].cases:
        case, _, output = run(converted, name, path)
        positions, ids = (torch.from_numpy(case.tensors[f"masked_lm_{x}"]).long() for x in ("positions", "ids"))
        logits = output.prediction_logits[torch.arange(len(ids))[:, None], positions]
        # the original divides by the number of labels plus 1e-5
        expected = case.tensors["mlm_loss"] * (ids.numel() + 1e-5) / ids.numel()
        np.testing.assert_allclose(masked_lm_loss(logits, ids).item(), expected.item(), rtol=0, atol=1e-5)
        # a position that stands twice counts twice there, and once among labels
        if all(len(set(row.tolist())) == len(row) for row in positions):
            total = expected + case.tensors["nsp_loss"]
            np.testing.assert_allclose(output.loss.item(), total.item(), rtol=0, atol=1e-5)


def test_every_gradient_is_that_of_the_original(converted):
    golden = require(GOLDEN["tiny-pretrain"])
    (path,) = [path for path in golden.cases if path.stem == "len768-grads"]
    case, model, output = run(converted, "tiny-pretrain", path)
    total = case.tensors["mlm_loss"] + case.tensors["nsp_loss"]
    np.testing.assert_allclose(output.loss.item(), total.item(), rtol=0, atol=1e-5)
    output.loss.backward()
    originals = {name.removeprefix("grad."): x for name, x in case.tensors.items() if name.startswith("grad.")}
    canonical = {}
    for row in weights_of(model.config, "pretraining", "torch"):
        (name,) = [name for name in row.original if name.format(scope="bert") in originals]
        canonical[row.name] = originals.pop(name.format(scope="bert"))
    assert not originals
    expected = to_framework(canonical, model.config, "pretraining", "torch")
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=0, atol=LIMIT, err_msg=name)


def test_the_classifier_loss_is_the_originals(converted):
    golden = require(GOLDEN["tiny-classifier"])
    case = read_golden(golden.cases[0])
    model = models_torch.BigBirdForSequenceClassification.from_pretrained(
        converted("tiny-classifier"), max_encoder_length=case.max_encoder_length
    )
    arguments = {name: torch.from_numpy(x) for name, x in case.inputs.items()}
    loss = model(**arguments, labels=torch.from_numpy(case.tensors["labels"])).loss
    np.testing.assert_allclose(loss.item(), case.tensors["cls_loss"].item(), rtol=0, atol=1e-5)
