"""The Flax models against transformers' Flax classes, with the same parameters."""

import inspect
import logging

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from bigbird_port.families.bigbird.heads import HEADS
from tests.models.flax_cases import (
    CROSS,
    DECODER,
    FULL,
    LENGTH,
    TINY,
    assert_trees_close,
    make_inputs,
    model_of,
    scores_of,
)

transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.peer,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
LIMIT = 1e-5
logging.getLogger("transformers").setLevel(logging.ERROR)


def peer_config(config):
    values = config.to_dict()
    for ours in ("max_encoder_length", "random_blocks", "classifier_style"):
        values.pop(ours)
    return transformers.BigBirdConfig(**values)


def peer_of(head, config):
    return getattr(transformers, HEADS[head].flax_class_name)(peer_config(config.for_head(head)), _do_init=False)


@pytest.mark.parametrize("config", [TINY, FULL], ids=["sparse", "full"])
@pytest.mark.parametrize("head", [head for head in HEADS if head != "causal-lm"])
@pytest.mark.quick("base-full")
def test_outputs_and_gradients_are_those_of_transformers(head, config):
    """Every score, hidden state and parameter's gradient, on real tokens of a padded batch."""
    config = config.replace(num_hidden_layers=2 if head == "base" else 1)
    ours, theirs = model_of(head, config, seed=3), peer_of(head, config)
    inputs = make_inputs(head)
    real = inputs["attention_mask"].reshape(-1, LENGTH).astype(bool)

    def run(model, params):
        output = model(**inputs, params=params, output_hidden_states=True)
        values = scores_of(output) | {f"hidden.{i}": x for i, x in enumerate(output.hidden_states)}
        values = {name: x[real] if x.shape[:2] == real.shape else x for name, x in values.items()}
        # question tokens score -1e6, where float32 has no more than 0.06 to say
        values = {name: jnp.where(x < -1e5, -1e6, x) for name, x in values.items()}
        loss = sum((jnp.sin(jnp.arange(x.size).reshape(x.shape)) * x).mean() for x in values.values())
        return loss, values

    gradients, values = {}, {}
    for name, model in (("ours", ours), ("theirs", theirs)):
        step = jax.jit(jax.value_and_grad(lambda p, model=model: run(model, p), has_aux=True))
        with jax.default_matmul_precision("highest"):
            (_, values[name]), gradients[name] = step(ours.params)
    assert values["ours"].keys() == values["theirs"].keys()
    assert_trees_close(values["ours"], values["theirs"], LIMIT)
    assert_trees_close(gradients["ours"], gradients["theirs"], LIMIT)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradients["ours"])) > 0.01


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.quick("True")
def test_a_decoder_is_that_of_transformers(cross):
    config = CROSS if cross else DECODER
    ours, theirs = model_of("causal-lm", config, seed=3), peer_of("causal-lm", config)
    inputs = make_inputs("causal-lm")
    extra = {}
    if cross:
        states = np.random.default_rng(0).standard_normal((2, 5, 16)).astype(np.float32)
        extra = {"encoder_hidden_states": states, "encoder_attention_mask": np.array([[1] * 5, [1, 1, 1, 0, 0]])}
    real = inputs["attention_mask"].astype(bool)
    found, expected = (
        model(**inputs, **extra, params=ours.params, output_attentions=True, output_hidden_states=True)
        for model in (ours, theirs)
    )
    np.testing.assert_allclose(found.logits[real], expected.logits[real], rtol=0, atol=LIMIT)
    for mine, other in zip(found.attentions, expected.attentions, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=LIMIT)
    if cross:
        for mine, other in zip(found.cross_attentions, expected.cross_attentions, strict=True):
            np.testing.assert_allclose(mine, other, rtol=0, atol=LIMIT)

    def loss(model, params):
        return jnp.sin(model(**inputs, **extra, params=params).logits[real]).mean()

    gradients = [jax.grad(lambda p, model=model: loss(model, p))(ours.params) for model in (ours, theirs)]
    assert_trees_close(*gradients, LIMIT)


@pytest.mark.parametrize("head", HEADS)
def test_every_argument_means_the_same(head):
    """Each argument alone changes the result, and to the same."""
    config = FULL.replace(num_hidden_layers=1)
    ours, theirs = model_of(head, config, seed=3), peer_of(head, config)
    everything = make_inputs(head)
    ids = everything.pop("input_ids")
    if head != "qa":  # there it has another default
        ids[ids == 0] = 5
    everything["head_mask"] = np.array([[1, 0]], np.int32)
    if head == "qa":
        everything["question_lengths"] = np.array([[4], [9]], np.int32)
        ids[ids == 0] = 5
    plain = scores_of(ours(ids))
    for name, value in everything.items():
        found = scores_of(ours(ids, **{name: value}))
        expected = scores_of(theirs(ids, **{name: value}, params=ours.params))
        assert any(np.abs(np.asarray(found[key] - plain[key])).max() > 1e-3 for key in found), name
        for key in found:
            at = np.asarray(found[key]) > -1e5
            np.testing.assert_array_equal(at, np.asarray(expected[key]) > -1e5)
            np.testing.assert_allclose(
                np.asarray(found[key])[at], np.asarray(expected[key])[at], rtol=0, atol=LIMIT, err_msg=name
            )


@pytest.mark.parametrize("head", HEADS)
def test_attentions_are_those_of_transformers(head):
    config = FULL.replace(num_hidden_layers=1)
    ours, theirs = model_of(head, config, seed=3), peer_of(head, config)
    inputs = make_inputs(head)
    options = {"output_attentions": True, "head_mask": np.array([1, 0], np.int32)}
    found = ours(**inputs, **options)
    options["head_mask"] = np.array([[1, 0]], np.int32)
    expected = theirs(**inputs, **options, params=ours.params)
    for mine, other in zip(found.attentions, expected.attentions, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=LIMIT)


@pytest.mark.parametrize("head", HEADS)
def test_tuples_come_in_the_order_of_transformers(head):
    config = FULL.replace(num_hidden_layers=1)
    ours, theirs = model_of(head, config, seed=3), peer_of(head, config)
    inputs = make_inputs(head)
    options = {"output_attentions": True, "output_hidden_states": True, "return_dict": False}
    found = jax.eval_shape(lambda: ours(**inputs, **options))
    expected = jax.eval_shape(lambda: theirs(**inputs, **options, params=ours.params))
    assert isinstance(found, tuple)
    if head in ("masked-lm", "token-classification"):  # there transformers loses the hidden states
        options["return_dict"] = True
        expected = jax.eval_shape(lambda: theirs(**inputs, **options, params=ours.params).to_tuple())
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, tuple(expected))


@pytest.mark.parametrize("head", HEADS)
def test_signatures_are_those_of_transformers(head):
    """The constructor's and the call's arguments in the same order with the same defaults; ours may follow."""
    ours, theirs = type(model_of(head, _do_init=False)), getattr(transformers, HEADS[head].flax_class_name)
    for method in ("__init__", "__call__"):
        mine, other = (inspect.signature(getattr(cls, method)).parameters.values() for cls in (ours, theirs))
        other = [(p.name, p.default) for p in other if p.kind is not p.VAR_KEYWORD]
        mine = [(p.name, p.default) for p in mine if p.kind is p.POSITIONAL_OR_KEYWORD]
        if method == "__init__":  # transformers' multiple choice leaves this to **kwargs
            other = other if ("gradient_checkpointing", False) in other else [*other, ("gradient_checkpointing", False)]
        assert mine == other


@pytest.mark.parametrize("safe", [False, True], ids=["msgpack", "safetensors"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.quick("pretraining-msgpack", "qa-safetensors")
def test_files_go_both_ways(head, safe, tmp_path):
    config = FULL.replace(random_blocks="original", num_labels=2 if head == "qa" else 3)  # transformers' QA sets it
    ours = model_of(head, config, seed=3)
    peer_class = getattr(transformers, HEADS[head].flax_class_name)
    ours.save_pretrained(tmp_path / "ours", safe_serialization=safe)
    theirs = peer_class.from_pretrained(tmp_path / "ours")
    assert_trees_close(ours.params, jax.tree.map(np.asarray, dict(theirs.params)), 0)
    theirs.save_pretrained(tmp_path / "theirs", safe_serialization=safe)
    again = type(ours).from_pretrained(tmp_path / "theirs")
    assert again.initialised == []
    assert again.config == ours.config
    assert_trees_close(again.params, ours.params, 0)


def test_filters_are_those_of_transformers():
    from models_flax.bigbird.generation import filter_logits

    logits = jnp.asarray(np.random.default_rng(0).standard_normal((4, 50)) * 3, jnp.float32)
    for k, p in ((1, None), (7, None), (80, None), (None, 0.05), (None, 0.6), (None, 0.999), (9, 0.5)):
        expected = logits
        if k:
            expected = transformers.FlaxTopKLogitsWarper(min(k, 50))(None, expected, 0)
        if p:
            expected = transformers.FlaxTopPLogitsWarper(p)(None, expected, 0)
        kept = np.isfinite(filter_logits(logits, k, p))
        np.testing.assert_array_equal(kept, np.isfinite(expected), err_msg=f"{k} {p}")
