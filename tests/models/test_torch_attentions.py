"""The dense probabilities that output_attentions returns, and head_mask."""

import pytest
import torch

import models_torch
from tests.models.torch_models import DECODER, FULL, TINY, padded, random_ids

LIMIT = 1e-5
ORIGINAL = TINY.replace(random_blocks="original")
CONFIGS = {
    "paper plan": (ORIGINAL.replace(max_position_embeddings=1024), 1024),  # repeats blocks
    "general plan": (ORIGINAL, 528),
    "no multiple of the block": (ORIGINAL, 530),
    "shorter than the pattern": (ORIGINAL.replace(max_encoder_length=640), 100),
    "transformers' blocks": (TINY, 192),
    "full": (FULL, 40),
    "causal": (DECODER, 40),
}


@pytest.mark.parametrize(("config", "length"), CONFIGS.values(), ids=CONFIGS)
def test_probabilities_sum_to_one_and_give_the_context(config, length):
    model = models_torch.BigBirdModel.from_config(config)
    ids, mask = padded(2, length)
    with torch.no_grad():
        output = model(ids, output_attentions=True, output_taps=True)
    real = mask.bool()
    assert len(output.attentions) == config.num_hidden_layers
    for i, attention in enumerate(output.attentions):
        assert attention.shape == (2, 2, length, length)
        assert (attention.sum(-1).transpose(1, 2)[real] - 1).abs().max() < LIMIT
        assert (attention.transpose(1, 3)[~real] == 0).all()  # nobody looks at padding
        context = (attention @ output.taps[f"layer.{i}.value"]).transpose(1, 2)
        assert (context - output.taps[f"layer.{i}.context"])[real].abs().max() < LIMIT
    if config.attention_type == "block_sparse":
        assert (output.attentions[0].transpose(1, 2)[~real] == 0).all()
        assert (output.attentions[0][0] == 0).float().mean() > 0.05 or length == 100  # it is sparse
    plain = model(ids)
    assert plain.attentions is None
    assert (plain.last_hidden_state - output.last_hidden_state)[real].abs().max() < LIMIT  # padding may be skipped
    model.encoder.skip_padding = False
    assert torch.equal(model(ids).last_hidden_state, output.last_hidden_state)


@pytest.mark.parametrize("config", [TINY, FULL], ids=["sparse", "full"])
def test_head_mask_multiplies_the_probabilities(config):
    model = models_torch.BigBirdModel.from_config(config)
    ids, factors = random_ids(1, 192), torch.tensor([[0.0, 1.0], [0.5, 2.0]])
    plain = model(ids, output_taps=True, output_attentions=True)
    masked = model(ids, head_mask=factors, output_taps=True, output_attentions=True)
    for what, axis in (("context", (1, 1, 2, 1)), ("attentions", (1, 2, 1, 1))):
        first = (plain.taps["layer.0.context"], masked.taps["layer.0.context"])
        if what == "attentions":
            first = (plain.attentions[0], masked.attentions[0])
        assert torch.equal(first[1], first[0] * factors[0].view(axis))
    one = model(ids, head_mask=factors[0]).last_hidden_state
    assert torch.equal(one, model(ids, head_mask=factors[[0, 0]]).last_hidden_state)
    assert not torch.allclose(one, masked.last_hidden_state)


def test_gradients_pass_through_probabilities():
    model = models_torch.BigBirdModel.from_config(TINY)
    output = model(random_ids(1, 192), output_attentions=True)
    output.attentions[1].square().sum().backward()
    assert model.encoder.layer[0].attention.self.value.weight.grad.abs().max() > 0
    assert model.encoder.layer[1].attention.self.query.weight.grad.abs().max() > 0
    assert model.encoder.layer[1].attention.self.value.weight.grad is None
