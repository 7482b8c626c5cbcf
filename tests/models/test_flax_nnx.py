"""The models under flax.nnx: the same numbers, an optimizer's steps, and the way back."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import models_flax
from models_flax.losses import masked_lm_loss
from models_flax.nnx import to_nnx, to_params
from tests.integrations.small import CONFIGS, NAMED, ids


def flax_model(name, **changes):
    family, head = NAMED[name]
    return getattr(models_flax, head.flax_class_name).from_config(CONFIGS[family.name].replace(**changes), 3)


@pytest.mark.parametrize("name", ["BigBirdForMaskedLM", "BigBirdForQuestionAnswering", "BigBirdPegasusModel"])
def test_a_bridged_model_gives_the_same_and_comes_back(name):
    model, text = flax_model(name, num_hidden_layers=1) if "Pegasus" not in name else flax_model(name), ids().numpy()
    bridged = to_nnx(model)
    found = nnx.jit(lambda module, given: module(given)[0])(bridged, text)
    assert np.abs(np.asarray(found) - np.asarray(model(text)[0])).max() < 1e-6
    back = to_params(bridged)
    assert jax.tree.structure(back) == jax.tree.structure(model.params)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), back, model.params)))


def test_a_model_whose_sides_share_weights_is_bridged():
    model, text = flax_model("BigBirdPegasusModel", couple_encoder_decoder=True, norm_type="postnorm"), ids().numpy()
    assert np.abs(np.asarray(to_nnx(model)(text)[0]) - np.asarray(model(text)[0])).max() < 1e-6


def test_an_optimizer_of_nnx_trains_it():
    model, text = flax_model("BigBirdForMaskedLM", num_hidden_layers=1), ids().numpy()
    bridged = to_nnx(model)
    optimizer = nnx.Optimizer(bridged, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(module, optimizer, given):
        def loss_of(module):
            return masked_lm_loss(module(given, deterministic=False).logits, given)

        loss, gradients = nnx.value_and_grad(loss_of)(module)
        optimizer.update(module, gradients)
        return loss

    losses = [float(step(bridged, optimizer, text)) for _ in range(6)]
    assert losses[-1] < losses[0] - 0.1
    trained = model(text, params=to_params(bridged)).logits
    assert np.abs(np.asarray(trained) - np.asarray(bridged(text).logits)).max() < 1e-5
    assert np.abs(np.asarray(trained) - np.asarray(model(text).logits)).max() > 1e-2


def test_dropout_is_drawn_anew_in_each_call_and_from_the_seed():
    model, text = flax_model("BigBirdModel", num_hidden_layers=1), ids().numpy()
    first, second = (np.asarray(to_nnx(model, 5)(text, deterministic=False)[0]) for _ in range(2))
    assert np.array_equal(first, second)
    bridged = to_nnx(model, 5)
    one, two = (np.asarray(bridged(text, deterministic=False)[0]) for _ in range(2))
    assert np.array_equal(one, first)
    assert not np.array_equal(one, two)


def test_a_model_without_parameters_is_refused():
    with pytest.raises(ValueError, match="has no parameters"):
        to_nnx(models_flax.FlaxBigBirdModel(CONFIGS["bigbird"], _do_init=False))
