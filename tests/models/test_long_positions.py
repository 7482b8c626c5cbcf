"""More position embeddings in both frameworks, and inputs beyond the 4096 tokens of the released models."""

import jax
import numpy as np
import pytest
import torch

import models_flax
import models_torch
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.schema.positions import extend_positions
from bigbird_port.schema.weights import from_framework
from parity.reference.model import Reference

SMALL = BigBirdConfig(
    vocab_size=90,
    hidden_size=16,
    num_attention_heads=2,
    num_hidden_layers=2,
    intermediate_size=24,
    max_position_embeddings=640,
    initializer_range=0.3,
    pad_token_id=0,
    sep_token_id=3,
)
BOTH = pytest.mark.parametrize(
    "model_class", [models_torch.BigBirdForMaskedLM, models_flax.FlaxBigBirdForMaskedLM], ids=["torch", "flax"]
)


def weights(model):
    """Weights by name, as arrays."""
    if isinstance(model, torch.nn.Module):
        return {name: x.detach().numpy() for name, x in model.state_dict().items()}
    leaves = jax.tree_util.tree_leaves_with_path(model.params)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def states(model, ids):
    """Last hidden states [B, L, D]."""
    given = torch.from_numpy(ids) if isinstance(model, torch.nn.Module) else ids
    with torch.no_grad(), jax.default_matmul_precision("highest"):
        return np.asarray(model(given).last_hidden_state)


@BOTH
@pytest.mark.parametrize("method", ["tile", "interpolate"])
def test_only_the_positions_change(model_class, method):
    model = model_class.from_config(SMALL, seed=3)
    longer = model.extend_positions(1500, method)
    assert type(longer) is type(model)
    assert longer.config == SMALL.replace(max_position_embeddings=1500)
    assert model.config == SMALL
    before, after = weights(model), weights(longer)
    assert before.keys() == after.keys()
    for name, values in before.items():
        extended = "position_embeddings" in name
        np.testing.assert_array_equal(after[name], extend_positions(values, 1500, method) if extended else values)


@BOTH
def test_a_longer_model_is_saved_and_loaded(model_class, tmp_path):
    longer = model_class.from_config(SMALL).extend_positions(1024, max_encoder_length=1024)
    longer.save_pretrained(tmp_path)
    again = model_class.from_pretrained(tmp_path)
    assert (again.config.max_position_embeddings, again.config.max_encoder_length) == (1024, 1024)
    for a, b in zip(weights(longer).values(), weights(again).values(), strict=True):
        np.testing.assert_array_equal(a, b)


@BOTH
def test_a_shorter_length_is_refused(model_class):
    with pytest.raises(ValueError, match="there are 640 already"):
        model_class.from_config(SMALL).extend_positions(600)


def test_what_a_torch_model_is_stays():
    """Its poolers, its type, its mode; and it shares no memory."""
    model = models_torch.BigBirdModel.from_config(SMALL, add_pooling_layer=False).bfloat16().train()
    longer = model.extend_positions(700)
    assert (longer.pooler, longer.training) == (None, True)
    assert {x.dtype for x in longer.parameters()} == {torch.bfloat16}
    assert all(x.requires_grad for x in longer.parameters())
    pointers = [{x.data_ptr() for x in m.parameters()} for m in (model, longer)]
    assert not pointers[0] & pointers[1]


def test_both_frameworks_follow_the_reference_at_8192_tokens():
    """The general plan of random blocks; one text is padded."""
    length, config = 8192, SMALL.replace(max_position_embeddings=8192)
    torch_model = models_torch.BigBirdModel.from_config(SMALL, seed=5).extend_positions(length)
    flax_model = models_flax.FlaxBigBirdModel.from_config(SMALL, seed=5).extend_positions(length)
    canonical = weights_by_canonical_name(torch_model)
    reference = Reference(config, "base", canonical, [])
    ids = np.random.default_rng(0).integers(4, 90, (2, length))
    ids[1, 5003:] = 0
    _, stream = reference.start({"input_ids": ids})
    for i in range(2):
        _, stream = reference.layer(i, stream)
    real, scale = ids != 0, np.abs(stream.x).max()
    assert torch_model.config == flax_model.config == config
    for model in (torch_model, flax_model):
        assert np.abs(states(model, ids) - stream.x)[real].max() < 2e-6 * scale
    other = models_torch.BigBirdModel.from_config(SMALL, seed=5).extend_positions(length, "interpolate")
    assert np.abs(states(other, ids) - stream.x)[real].max() > 1e-2 * scale  # the negative control


def weights_by_canonical_name(model):
    weights = from_framework(
        {name: x.detach().numpy() for name, x in model.state_dict().items()}, model.config, "base", "torch"
    )
    return {name: x.astype(np.float64) for name, x in weights.items()}
