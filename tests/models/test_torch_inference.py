"""Linear layers from weights that oneDNN laid out: the same model, and nothing left behind."""

import pytest
import torch

import models_torch
from models_torch.inference import fast_linears
from tests.models.torch_models import TINY, padded

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
CONFIG = TINY.replace(hidden_size=96, intermediate_size=160)


def states(model, arguments):
    with torch.no_grad():
        return model(*arguments).last_hidden_state


def test_the_model_is_the_same_inside_and_untouched_after():
    model, arguments = models_torch.BigBirdModel.from_config(CONFIG), padded(2, 192)
    expected, before = states(model, arguments), {name: x.clone() for name, x in model.state_dict().items()}
    with fast_linears(model) as count:
        assert count == 2 * 6 + 1  # each layer's six, and the pooler
        found = model(*arguments).last_hidden_state
        assert model.state_dict().keys() == before.keys()
    assert not found.requires_grad
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()
    assert torch.equal(states(model, arguments), expected)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_the_packed_weights_are_what_runs():
    """The negative control: weights changed inside are not seen, so those of the entry were used."""
    model, arguments = models_torch.BigBirdModel.from_config(CONFIG), padded(2, 192)
    expected = states(model, arguments)
    with fast_linears(model):
        model.encoder.layer[0].intermediate.dense.weight.zero_()
        assert (model(*arguments).last_hidden_state - expected).abs().max() < 1e-6 * expected.abs().max()
    assert (states(model, arguments) - expected).abs().max() > 0.01


def test_gradients_come_from_the_layer_itself():
    model, arguments = models_torch.BigBirdModel.from_config(CONFIG), padded(1, 192)
    with fast_linears(model), torch.enable_grad():
        model(*arguments).last_hidden_state.square().sum().backward()
    assert model.encoder.layer[0].attention.self.query.weight.grad.abs().max() > 0


def test_an_error_inside_leaves_nothing_behind():
    model = models_torch.BigBirdModel.from_config(CONFIG)
    with pytest.raises(RuntimeError, match="stop"), fast_linears(model):
        raise RuntimeError("stop")
    assert not any("forward" in vars(module) for module in model.modules())
    assert torch.is_grad_enabled()


def test_a_model_without_such_layers_is_refused():
    with pytest.raises(ValueError, match="no linear layer in float32"), fast_linears(torch.nn.Linear(2, 2).double()):
        pass


def test_a_forward_that_somebody_replaced_stays_theirs():
    model = models_torch.BigBirdModel.from_config(CONFIG)
    dense = model.encoder.layer[0].intermediate.dense
    dense.forward = lambda x: x.new_zeros(*x.shape[:-1], 160)
    theirs = dense.forward
    with fast_linears(model) as count:
        assert count == 2 * 6
        assert dense.forward is theirs
        assert "forward" in vars(model.encoder.layer[1].intermediate.dense)
    assert dense.forward is theirs
