"""What people do with a model of BigBird-Pegasus: store it whole, read its outputs, trace it, configure it."""

import copy
import pickle
import warnings

import jax
import numpy as np
import pytest
import torch

import models_flax
import models_torch
from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from bigbird_port.families.pegasus.heads import HEADS
from models_torch.pegasus.cache import DecoderCache

SMALL = BigBirdPegasusConfig(
    vocab_size=99,
    d_model=16,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=24,
    decoder_ffn_dim=24,
    max_position_embeddings=128,
    block_size=8,
)
FRAMEWORKS = ("torch", "flax")


def class_of(framework, head):
    package, record = (models_torch, HEADS[head].class_name), (models_flax, HEADS[head].flax_class_name)
    return getattr(*(package if framework == "torch" else record))


def text(rows=2, length=20, seed=0):
    """Ids, each text with an end."""
    ids = np.random.default_rng(seed).integers(3, 99, (rows, length))
    ids[:, -1] = SMALL.eos_token_id
    return ids


def weights_of(model):
    if isinstance(model, torch.nn.Module):
        return [x.detach().numpy() for x in model.state_dict().values()]
    return [np.asarray(leaf) for leaf in jax.tree.leaves(model.params)]


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(weights_of(first), weights_of(second), strict=True))


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("head", HEADS)
def test_every_model_pickles_copies_begins_initialised_and_is_extended(framework, head):
    model = class_of(framework, head)(SMALL, seed=3)
    assert equal(model, class_of(framework, head).from_config(SMALL, 3))
    assert model.initialised != []
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert equal(again, model)
        assert again.config == model.config
    assert model.extend_positions(130).config.max_position_embeddings == 130


def test_a_new_model_begins_at_the_loss_of_guessing():
    ids = torch.tensor(text())
    config = SMALL.replace(init_std=0.002, label_smoothing=0.0)
    model = models_torch.BigBirdPegasusForConditionalGeneration(config).eval()
    assert model(ids, labels=ids).loss.item() == pytest.approx(np.log(SMALL.vocab_size), abs=0.1)


@pytest.mark.parametrize("head", HEADS)
def test_outputs_are_rebuilt_as_trainer_and_accelerate_do(head):
    trainer = pytest.importorskip("transformers.trainer_pt_utils")
    output = class_of("torch", head).from_config(SMALL)(torch.tensor(text()), use_cache=True)
    again = type(output)(dict(output))
    assert again[0] is output[0]
    assert list(again) == list(output)
    doubled = torch.utils._pytree.tree_map(lambda x: x + x, output)
    assert torch.equal(doubled.past_key_values[0].value, 2 * output.past_key_values[0].value)
    arrays = trainer.nested_numpify(trainer.nested_detach(output.to_tuple()))
    both = trainer.nested_concat(arrays, arrays)
    assert len(both[0]) == 2 * len(output[0])
    assert len(both[list(output).index("past_key_values")][0].key) == 2 * len(output.past_key_values[0].key)
    assert pickle.loads(pickle.dumps(output)).past_key_values[0].filled == output.past_key_values[0].filled == 20


def test_a_cache_is_a_tuple_of_tensors():
    key, value = torch.zeros(1, 2, 6, 4), torch.ones(1, 2, 6, 4)
    cache = DecoderCache(key, value, filled=3)
    assert (len(cache), cache.filled, cache.cross_key) == (3, 3, None)
    crossed = cache._replace(cross_key=key, cross_value=value)
    moved = type(crossed)(x.clone() for x in crossed)
    assert (len(moved), moved.filled) == (5, 3)
    assert torch.equal(moved.cross_value, value)
    assert copy.deepcopy(moved).filled == 3
    with pytest.raises(ValueError, match="found 2"):
        DecoderCache((key, value))


@pytest.mark.parametrize("head", HEADS)
def test_a_traced_model_gives_the_same(head):
    model, ids, other = class_of("torch", head).from_config(SMALL), text(2, 96), text(2, 96, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that tracing is deprecated, and that a length is fixed by it
        traced = torch.jit.trace(model, torch.tensor(ids))
    with torch.no_grad():
        found, expected = traced(torch.tensor(other)), model(torch.tensor(other)).to_tuple()
    assert (found[0] - expected[0]).abs().max() < 1e-6
    assert len(found) == len(expected)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("head", ["base", "causal-lm"])
def test_the_configuration_says_what_a_call_returns(framework, head):
    config = SMALL.replace(output_hidden_states=True, output_attentions=True, return_dict=False, use_cache=False)
    model = class_of(framework, head).from_config(config)
    ids = torch.tensor(text()) if framework == "torch" else text()
    found = model(ids)
    assert isinstance(found, tuple)
    assert len(found) > 2
    asked = model(ids, output_attentions=False, output_hidden_states=False, return_dict=True)
    assert not [name for name in asked if "attentions" in name or name.endswith("hidden_states")]
