"""What convert writes loads in transformers, and runs there as here, in transformers' mode."""

import jax
import numpy as np
import pytest
import torch

import models_flax
import models_torch
from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.families.bigbird.heads import HEADS
from parity.given.inputs import for_head, make_inputs
from tests.conftest import DEMO, GOLDEN, require

transformers = pytest.importorskip("transformers", reason="transformers is the peer")
pytestmark = pytest.mark.peer
LIMIT = 1e-5
BY_HEAD = pytest.mark.parametrize("head", HEADS)
LENGTHS = [pytest.param(400, id="block-sparse"), pytest.param(176, id="full")]  # it switches at 11 blocks of 16


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("by-head")
    for head in HEADS:
        convert(DEMO, folder / head, Settings(head=head))
    return folder


def peer_inputs(config, head, length):
    inputs = for_head(make_inputs(config, 2, length, seed=0), head, config)
    return inputs | {"attention_mask": (inputs["input_ids"] != 0).astype(np.int32)}


def compare(output, peer, inputs):
    """Every score of ours against the peer's, on real tokens."""
    real = inputs["attention_mask"].astype(bool)
    names = ("last_hidden_state", "pooler_output", "prediction_logits", "seq_relationship_logits", "logits",
             "start_logits", "end_logits")  # fmt: skip
    compared = [name for name in names if getattr(output, name, None) is not None]
    assert compared
    for name in compared:
        ours, theirs = np.asarray(getattr(output, name)), np.asarray(getattr(peer, name))
        if ours.shape[:2] == real.shape:
            ours, theirs = ours[real], theirs[real]
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=LIMIT, err_msg=name)


@BY_HEAD
@pytest.mark.parametrize("length", LENGTHS)
def test_torch_loads_and_agrees(folders, head, length):
    peer, info = getattr(transformers, HEADS[head].class_name).from_pretrained(
        folders / head / "torch", output_loading_info=True
    )
    assert not any(info.values()), info
    model = getattr(models_torch, HEADS[head].class_name).from_pretrained(
        folders / head, random_blocks="transformers", max_encoder_length=None
    )
    inputs = peer_inputs(model.config, head, length)
    tensors = {name: torch.from_numpy(x).long() for name, x in inputs.items()}
    with torch.no_grad():
        compare(model(**tensors), peer.eval()(**tensors), inputs)


@BY_HEAD
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.quick("full-qa", "full-base", "block-sparse-qa")
def test_flax_loads_and_agrees(folders, head, length):
    peer_class = getattr(transformers, HEADS[head].flax_class_name)
    full = length == 176  # its Flax classes do not switch to full attention by themselves
    overrides = {"attention_type": "original_full"} if full or head == "causal-lm" else {}
    with pytest.MonkeyPatch.context() as patch:
        messages = []
        logger = transformers.modeling_flax_utils.logger
        patch.setattr(logger, "warning", lambda text, *_: messages.append(str(text)))
        peer = peer_class.from_pretrained(folders / head / "flax", **overrides)
    assert not any("newly initialized" in text or "were not used" in text for text in messages), messages
    model = getattr(models_flax, HEADS[head].flax_class_name).from_pretrained(
        folders / head, random_blocks="transformers", max_encoder_length=None, **overrides
    )
    inputs = peer_inputs(model.config, head, length)
    if head != "qa":
        inputs.setdefault("token_type_ids", np.zeros_like(inputs["input_ids"]))
    with jax.default_matmul_precision("highest"):
        compare(model(**inputs), peer(**inputs), inputs)


def test_the_peer_leaves_the_original_in_evaluation(converted):
    """Why random_blocks is "original" by default: the figures of its evaluation mode are far from the original's."""
    from parity.given.golden import log_softmax, read_golden

    case = read_golden(next(c for c in require(GOLDEN["tiny-pretrain"]).cases if "len1024" in c.name))
    peer = transformers.BigBirdForPreTraining.from_pretrained(converted("tiny-pretrain") / "torch").eval()
    ids = torch.from_numpy(case.inputs["input_ids"]).long()
    types = torch.from_numpy(case.inputs["token_type_ids"]).long()
    with torch.no_grad():
        logits = peer(ids, attention_mask=(ids != 0).long(), token_type_ids=types).prediction_logits.numpy()
    real = case.inputs["input_ids"] != 0
    error = np.abs(log_softmax(logits) - case.tensors["mlm_log_probs"])[real].max()
    assert error > 1
