"""The decoder: its cache, cross-attention and generation."""

import warnings

import pytest
import torch

import models_torch
from models_torch.bigbird.cache import cached_length, init_cache
from models_torch.bigbird.generation import filter_logits
from models_torch.pretrained import model as pretrained
from tests.models.torch_models import DECODER, FULL, TINY, padded, random_ids

LIMIT = 1e-5
CROSS = DECODER.replace(add_cross_attention=True)


def causal(config=DECODER):
    return models_torch.BigBirdForCausalLM.from_config(config)


def steps(model, ids, mask, sizes, **arguments):
    """Logits of the text fed in pieces of ``sizes`` tokens, each with the cache of those before, and the last cache."""
    past, logits, start = arguments.pop("past", None), [], 0
    for size in sizes:
        end = start + size
        with torch.no_grad():
            output = model(
                ids[:, start:end], attention_mask=mask[:, :end], past_key_values=past, use_cache=True, **arguments
            )
        past, start = output.past_key_values, end
        assert cached_length(past) == end
        logits.append(output.logits)
    return torch.cat(logits, dim=1), past


@pytest.mark.parametrize("sizes", [[1] * 20, [7, 1, 1, 11], [20]])
@pytest.mark.parametrize("config", [DECODER, CROSS], ids=["decoder", "cross-attention"])
@pytest.mark.parametrize("empty", [False, True])
def test_token_by_token_equals_the_full_pass(config, sizes, empty):
    model = causal(config)
    ids, mask = padded(2, 20)
    arguments = {}
    if config.add_cross_attention:
        arguments["encoder_hidden_states"] = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0))
        arguments["encoder_attention_mask"] = (torch.arange(9) < torch.tensor([[9], [4]])).long()
    whole = model(ids, attention_mask=mask, **arguments).logits
    past = init_cache(config, 2, 20) if empty else None
    pieces, cache = steps(model, ids, mask, sizes, **arguments, past=past)
    assert (pieces - whole)[mask.bool()].abs().max() < LIMIT
    assert (cache[0].cross_key is not None) == config.add_cross_attention


def test_a_step_may_not_forget_the_encoder():
    model, ids = causal(CROSS), random_ids(1, 6)
    states = torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(0))
    past = model(ids[:, :5], encoder_hidden_states=states).past_key_values
    with pytest.raises(ValueError, match="encoder_hidden_states was not given: give it at every step"):
        model(ids[:, 5:], past_key_values=past)


def test_a_cache_is_not_changed_by_its_use():
    model, ids = causal(), random_ids(1, 12)
    past = model(ids[:, :8]).past_key_values
    before = [layer.key.clone() for layer in past]
    first = model(ids[:, 8:10], past_key_values=past).logits
    assert torch.equal(first, model(ids[:, 8:10], past_key_values=past).logits)
    assert all(torch.equal(a, layer.key) for a, layer in zip(before, past, strict=True))
    assert cached_length(past) == 8
    assert cached_length(None) == 0


def test_the_cache_is_returned_where_asked_for():
    ids = random_ids(1, 5)
    assert causal()(ids).past_key_values is not None
    assert causal()(ids, use_cache=False).past_key_values is None
    assert causal(DECODER.replace(use_cache=False))(ids).past_key_values is None
    assert models_torch.BigBirdModel.from_config(FULL)(ids, use_cache=True).past_key_values is None


def test_a_block_sparse_decoder_says_once_that_it_attends_fully():
    config = TINY.replace(is_decoder=True)
    pretrained._warn_decoder.cache_clear()
    with pytest.warns(UserWarning, match="full attention runs instead"):
        model = models_torch.BigBirdModel.from_config(config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = models_torch.BigBirdForCausalLM.from_config(config)
    assert {model.config.attention_type, again.config.attention_type} == {"original_full"}
    ids = random_ids(1, 300)
    full = models_torch.BigBirdModel.from_config(DECODER)
    assert torch.equal(model(ids).last_hidden_state, full(ids).last_hidden_state)


def test_cross_attention_depends_on_real_encoder_states_only():
    model = models_torch.BigBirdModel.from_config(CROSS)
    ids, states = random_ids(1, 6), torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(8) < 5).long()[None]
    first = model(ids, encoder_hidden_states=states, encoder_attention_mask=mask, output_attentions=True)
    hidden = states.clone()
    hidden[:, 5:] = 100
    again = model(ids, encoder_hidden_states=hidden, encoder_attention_mask=mask).last_hidden_state
    assert torch.equal(first.last_hidden_state, again)
    assert [x.shape for x in first.cross_attentions] == [(1, 2, 6, 8)] * 2
    assert (first.cross_attentions[0].sum(-1) - 1).abs().max() < LIMIT
    hidden[:, 0] += 1
    seen = model(ids, encoder_hidden_states=hidden, encoder_attention_mask=mask).last_hidden_state
    assert (seen - again).abs().max() > 1e-3


def test_greedy_generation_takes_the_best_token_of_the_full_pass():
    model, ids = causal(), random_ids(2, 6)
    result = model.generate(ids, max_new_tokens=9, eos_token_id=-1)
    assert result.shape == (2, 15)
    assert torch.equal(result[:, :6], ids)
    best = model(result, attention_mask=torch.ones_like(result)).logits.argmax(-1)
    assert torch.equal(result[:, 6:], best[:, 5:-1])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_of_a_prompt_does_not_change_what_is_written(side):
    model, ids = causal(), random_ids(1, 6)
    alone = model.generate(ids, max_new_tokens=8, eos_token_id=-1)[:, 6:]
    blank = torch.zeros(1, 3, dtype=torch.long)
    batch = torch.cat((ids, blank) if side == "right" else (blank, ids), dim=1)
    batch = torch.cat((batch, random_ids(1, 9, seed=5)))
    assert torch.equal(model.generate(batch, max_new_tokens=8, eos_token_id=-1)[:1, 9:], alone)
    one = torch.cat((blank, ids[:, :1]), dim=1)  # a prompt of one token
    expected = model.generate(ids[:, :1], max_new_tokens=4, eos_token_id=-1)[:, 1:]
    assert torch.equal(model.generate(one, max_new_tokens=4, eos_token_id=-1)[:, 4:], expected)


def test_a_text_ends_with_eos_and_goes_on_with_padding():
    model, ids = causal(), random_ids(2, 6)
    free = model.generate(ids, max_new_tokens=10, eos_token_id=-1)[:, 6:]
    eos = int(free[0, 3])
    at = (free == eos).int().argmax(dim=1).tolist()
    ended = model.generate(ids, max_new_tokens=10, eos_token_id=eos, pad_token_id=7)[:, 6:]
    assert (ended[0, at[0] + 1 :] == 7).all()
    assert torch.equal(ended[0, : at[0] + 1], free[0, : at[0] + 1])
    alone = model.generate(ids[:1], max_new_tokens=10, eos_token_id=eos)
    assert alone.shape == (1, 6 + at[0] + 1)  # it stops when every text has ended


def test_sampling_follows_its_seed_and_the_probabilities():
    model = causal()
    ids = random_ids(1, 5).expand(4000, 5)
    state = torch.get_rng_state()
    draws = [model.generate(ids, 1, do_sample=True, temperature=2.0, seed=seed)[:, 5] for seed in (0, 0, 1)]
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    expected = (model(ids[:1]).logits[0, -1] / 2).softmax(-1)
    found = draws[0].bincount(minlength=90) / 4000
    assert (found - expected).abs().max() < 0.03  # 4 standard deviations of a frequency of 4000 draws
    best = model.generate(ids[:3], 4, do_sample=True, top_k=1)
    assert torch.equal(best, model.generate(ids[:3], 4))
    allowed = filter_logits(model(ids[:1]).logits[0, -1] / 2, top_k=5, top_p=0.8).isfinite()
    drawn = model.generate(ids, 1, do_sample=True, temperature=2.0, top_k=5, top_p=0.8)[:, 5]
    assert set(drawn.tolist()) == set(allowed.nonzero()[:, 0].tolist())


def test_generation_with_cross_attention():
    model, ids = causal(CROSS), random_ids(2, 4)
    states = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0))
    result = model.generate(ids, 6, eos_token_id=-1, encoder_hidden_states=states)
    mask = torch.ones_like(result)
    best = model(result, attention_mask=mask, encoder_hidden_states=states).logits.argmax(-1)
    assert torch.equal(result[:, 4:], best[:, 3:-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": 636}, "after a prompt of 5 tokens there are position embeddings for 635 more"),
        ({"do_sample": True, "temperature": 0.0}, "temperature is 0.0"),
        ({"do_sample": True, "top_k": 0}, "top_k is 0"),
        ({"do_sample": True, "top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_wrong_settings_of_generation_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        causal().generate(random_ids(1, 5), **arguments)


def test_a_cache_of_wrong_length_is_refused():
    with pytest.raises(ValueError, match="max_length is 641"):
        init_cache(DECODER, 1, 641)
