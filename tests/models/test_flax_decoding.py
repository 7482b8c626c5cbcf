"""The cache, generation, attention probabilities and head masks of the Flax models.

Legend: B batch, N heads, L length, H head size.
"""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from models_flax.bigbird.cache import cached_length, init_cache
from models_flax.bigbird.generation import filter_logits
from tests.models.flax_cases import CROSS, DECODER, FULL, LENGTH, SPARSE, TINY, assert_trees_close, make_ids, model_of

LIMIT = 1e-5
STATES = np.random.default_rng(3).standard_normal((2, 5, 16)).astype(np.float32)
ENCODER_MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], np.int32)


def padded_ids(length=10):
    ids = make_ids((2, length))
    ids[1, :3] = 0  # on the left, as for generation
    return ids


@pytest.mark.parametrize("cross", [False, True], ids=["alone", "cross"])
@pytest.mark.parametrize("head", ["base", "causal-lm"])
@pytest.mark.quick("causal-lm-alone", "base-cross")
def test_token_by_token_equals_the_full_pass(head, cross):
    """One token, then four, then one at a time, jitted, with the padding known from the ids alone."""
    model, ids = model_of(head, CROSS if cross else DECODER, seed=1), padded_ids()
    encoder = {"encoder_hidden_states": STATES, "encoder_attention_mask": ENCODER_MASK} if cross else {}
    whole = model(ids, **encoder)[0]
    step = jax.jit(lambda params, new, past: model(new, **encoder, params=params, past_key_values=past))
    past, found = model.init_cache(2, 12), []
    for start, end in ((0, 1), (1, 5), *((i, i + 1) for i in range(5, 10))):
        output = step(model.params, ids[:, start:end], past)
        past = output.past_key_values
        found.append(output[0])
        assert cached_length(past) == end
    real = ids != 0
    np.testing.assert_allclose(np.concatenate(found, 1)[real], np.asarray(whole)[real], rtol=0, atol=LIMIT)
    assert past[0].key.shape == (2, 2, 12, 8)
    assert (past[0].cross_key is None) != cross


def test_a_cache_takes_a_mask_of_the_new_tokens_or_of_all_places():
    model, ids = model_of("causal-lm", DECODER, seed=1), make_ids((2, 6))
    mask = np.ones((2, 8), np.int32)
    mask[0, :2] = 0
    run = jax.jit(lambda ids, mask, past: model(ids, attention_mask=mask, past_key_values=past))
    whole = np.asarray(run(ids, mask[:, :6], None).logits)
    for places in (8, None):
        past, found = model.init_cache(2, 8), []
        for start, end in ((0, 4), (4, 6)):
            given = mask if places else mask[:, start:end]
            output = run(ids[:, start:end], given, past)
            past = output.past_key_values
            found.append(output.logits)
        np.testing.assert_allclose(np.concatenate(found, 1)[:, 2:], whole[:, 2:], rtol=0, atol=LIMIT)


def test_a_cache_does_not_change_in_place():
    model, ids = model_of("causal-lm", DECODER), make_ids((1, 3))
    past = model.init_cache(1, 8)
    first = model(ids, past_key_values=past)
    assert cached_length(past) == 0
    assert not np.asarray(past[0].key).any()
    again = model(ids, past_key_values=past)
    assert_trees_close(first, again, 0)
    assert model(ids).past_key_values is None


def test_a_cache_that_does_not_fit_is_refused():
    model, ids = model_of("causal-lm", DECODER), make_ids((1, 5))
    with pytest.raises(ValueError, match="holds 0 tokens and has 4 places, too few for 5 more"):
        model(ids, past_key_values=model.init_cache(1, 4))
    past = model(ids, past_key_values=model.init_cache(1, 8)).past_key_values
    with pytest.raises(ValueError, match="holds 5 tokens and has 8 places, too few for 5 more"):
        model(ids, past_key_values=past)
    with pytest.raises(ValueError, match=r"layer 0 has a key \[2, 2, 8, 8\]"):
        model(ids, past_key_values=model.init_cache(2, 8))
    with pytest.raises(ValueError, match="1 entries, expected 2"):
        model(ids, past_key_values=model.init_cache(1, 8)[:1])
    with pytest.raises(ValueError, match=r"max_length is 257, expected 1 \.\. 256"):
        init_cache(DECODER, 1, 257)
    with pytest.raises(ValueError, match="this model is no decoder"):
        model_of("base", FULL)(ids, past_key_values=init_cache(FULL, 1, 8))
    with pytest.raises(ValueError, match="FlaxBigBirdForMaskedLM takes none"):
        model_of("masked-lm", DECODER)(ids, past_key_values=init_cache(FULL, 1, 8))


def test_a_cache_with_an_encoder_wants_it_at_every_step():
    model, ids = model_of("causal-lm", CROSS), make_ids((2, 1))
    past = model(ids, encoder_hidden_states=STATES, past_key_values=model.init_cache(2, 4)).past_key_values
    with pytest.raises(ValueError, match="encoder_hidden_states was not given: give it at every step"):
        model(ids, past_key_values=past)


def greedy(model, ids, count, **encoder):
    """Without a cache, the whole text anew for every token; what lies ahead is padding and not seen."""
    whole, length = np.pad(ids, ((0, 0), (0, count))), ids.shape[1]
    run = jax.jit(lambda ids: model(ids, **encoder).logits)
    for i in range(length, length + count):
        whole[:, i] = np.asarray(run(whole))[:, i - 1].argmax(-1)
    return whole


def test_greedy_generation_is_the_argmax_of_the_full_pass():
    model = model_of("causal-lm", CROSS, seed=4)
    encoder = {"encoder_hidden_states": STATES, "encoder_attention_mask": ENCODER_MASK}
    expected = greedy(model, make_ids((2, 5)), 6, **encoder)
    found = model.generate(make_ids((2, 5)), max_new_tokens=6, eos_token_id=-1, **encoder)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected[:, 5:])) > 2


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_of_the_prompts_changes_no_continuation(side):
    model = model_of("causal-lm", DECODER, seed=4)
    long, short = make_ids((1, 7), 1), make_ids((1, 4), 2)
    pad = np.zeros((1, 3), np.int32)
    batch = np.concatenate((long, np.concatenate((pad, short) if side == "left" else (short, pad), axis=1)))
    together = np.asarray(model.generate(batch, max_new_tokens=5, eos_token_id=-1))[:, 7:]
    alone = [np.asarray(model.generate(ids, max_new_tokens=5, eos_token_id=-1))[:, -5:] for ids in (long, short)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_generation_ends_with_eos_and_pads():
    model, ids = model_of("causal-lm", DECODER, seed=4), make_ids((2, 5))
    free = np.asarray(model.generate(ids, max_new_tokens=6, eos_token_id=-1))
    eos = next(int(token) for token in free[0, 5:] if token not in free[1, 5:])
    at = 5 + list(free[0, 5:]).index(eos)
    found = np.asarray(model.generate(ids, max_new_tokens=6, eos_token_id=eos, pad_token_id=69))
    np.testing.assert_array_equal(found[1], free[1])
    np.testing.assert_array_equal(found[0, : at + 1], free[0, : at + 1])
    assert (found[0, at + 1 :] == 69).all()
    assert model.generate(ids[:1], max_new_tokens=6, eos_token_id=eos).shape == (1, at + 1)


def test_sampling_follows_its_seed_and_filters():
    model, ids = model_of("causal-lm", DECODER, seed=4), make_ids((2, 5))
    options = {"max_new_tokens": 5, "do_sample": True, "temperature": 3.0, "eos_token_id": -1}
    first, again, other = (np.asarray(model.generate(ids, seed=seed, **options)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    best = model.generate(ids, max_new_tokens=5, eos_token_id=-1)
    for strict in ({"top_k": 1}, {"top_p": 1e-6}):
        np.testing.assert_array_equal(model.generate(ids, **options, **strict), best)


def test_samples_have_the_probabilities_of_the_logits():
    logits = jnp.log(jnp.asarray([0.5, 0.25, 0.15, 0.1]))
    drawn = jax.random.categorical(jax.random.key(0), filter_logits(logits[None], top_p=0.7), shape=(4000,))
    counts = np.bincount(np.asarray(drawn).ravel(), minlength=4) / 4000
    np.testing.assert_allclose(counts, [2 / 3, 1 / 3, 0, 0], atol=0.03)  # four standard deviations


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": 252}, "after a prompt of 5 tokens there are position embeddings for 251 more"),
        ({"temperature": 0.0}, "temperature is 0.0, expected above 0"),
        ({"do_sample": True, "top_k": 0}, "top_k is 0"),
        ({"do_sample": True, "top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_bad_generation_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        model_of("causal-lm", DECODER).generate(make_ids((1, 5)), **options)


@pytest.mark.parametrize(
    ("config", "length"),
    [(SPARSE, 1024), (SPARSE, 760), (TINY, LENGTH), (FULL, 20), (DECODER, 20)],
    ids=["paper-plan", "general-plan", "transformers", "full", "decoder"],
)
@pytest.mark.quick("general-plan", "decoder")
def test_attentions_are_the_weights_of_the_values(config, length):
    """Rows of real tokens sum to 1, and the values weighted by them are the context; a repeated block is summed."""
    model, ids = model_of("base", config, seed=1), make_ids((2, length))
    ids[1, length - 13 :] = 0
    run = jax.jit(lambda ids: model(ids, output_attentions=True, output_taps=True))
    with jax.default_matmul_precision("highest"):
        output = run(ids)
    for i, attentions in enumerate(output.attentions):
        assert attentions.shape == (2, 2, length, length)
        real = (ids != 0)[:, None, :].repeat(2, axis=1)
        np.testing.assert_allclose(np.asarray(attentions.sum(-1))[real], 1, rtol=0, atol=1e-5)
        assert not np.asarray(attentions)[1, :, :, length - 13 :].any()
        context = np.einsum("bnlk,bnkh->blnh", attentions, output.taps[f"layer.{i}.value"])
        np.testing.assert_allclose(context, output.taps[f"layer.{i}.context"], rtol=0, atol=LIMIT)
    if config is SPARSE:
        assert (np.asarray(output.attentions[0])[0] == 0).mean() > 0.3
        assert not np.asarray(output.attentions[0])[1, :, length - 13 :].any()


@pytest.mark.parametrize("config", [TINY, FULL], ids=["sparse", "full"])
@pytest.mark.quick("sparse")
def test_a_head_mask_multiplies_probabilities_and_context(config):
    model, ids = model_of("base", config, seed=1), make_ids((1, LENGTH))
    run = jax.jit(lambda mask: model(ids, head_mask=mask, output_attentions=True, output_taps=True))
    plain = run(jnp.ones(2))
    mask = jnp.asarray([[0.0, 0.5], [1.0, 1.0]])
    masked = run(mask)
    for n, factor in enumerate((0.0, 0.5)):
        np.testing.assert_allclose(masked.attentions[0][:, n], factor * plain.attentions[0][:, n], rtol=0, atol=1e-6)
        context = plain.taps["layer.0.context"][:, :, n]
        np.testing.assert_allclose(masked.taps["layer.0.context"][:, :, n], factor * context, rtol=0, atol=1e-6)
    np.testing.assert_allclose(run(mask[0]).attentions[0], masked.attentions[0], rtol=0, atol=0)
    assert np.abs(run(mask[0]).last_hidden_state - masked.last_hidden_state).max() > 1e-3


def test_a_mask_of_queries_and_keys_says_alone_who_attends_to_whom():
    model, ids = model_of("base", FULL, seed=1), make_ids((2, 12))
    causal = np.tril(np.ones((2, 12, 12), np.int32))
    found = model(ids, attention_mask=causal).last_hidden_state
    expected = model_of("base", DECODER, seed=1)(ids).last_hidden_state
    np.testing.assert_allclose(found, expected, rtol=0, atol=LIMIT)
