"""Products of few rows in the other order: the same numbers, only while something is written, and nothing else lost."""

import pytest
import torch
from torch import nn

import models_torch
from models_torch import few_rows
from tests.models.torch_models import TINY, padded


@pytest.fixture
def turned(monkeypatch):
    """The shapes of what is multiplied in the other order."""
    made = []
    own = few_rows.suits

    def suits(x):
        found = own(x)
        if found:
            made.append(tuple(x.shape))
        return found

    monkeypatch.setattr(few_rows, "suits", suits)
    return made


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4, 1, 24), (5, 24), (8, 24), (3, 1, 24), (2, 2, 24)])
def test_few_rows_give_the_same_numbers(turned, shape, bias):
    torch.manual_seed(0)
    layer, x = nn.Linear(24, 40, bias=bias), torch.randn(shape)
    with torch.no_grad():
        right = layer(x)
        with few_rows.written_fast(layer):
            found = layer(x)
    assert turned == [shape]
    assert found.is_contiguous()
    assert found.shape == right.shape
    torch.testing.assert_close(found, right, rtol=1e-6, atol=1e-6)


def test_gradients_other_types_and_other_numbers_of_rows_are_left_alone(turned):
    layer = nn.Linear(24, 40)
    with few_rows.written_fast(layer):
        assert layer(torch.randn(4, 24)).requires_grad
        with torch.no_grad():
            for rows in (1, 2, 9, 100):
                layer(torch.randn(rows, 24))
            with torch.autocast("cpu", torch.bfloat16):
                layer(torch.randn(4, 24))
            layer.double()(torch.randn(4, 24).double())
    assert turned == []


def test_what_else_a_layer_does_is_done(turned):
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    hooked, doubled, replaced = nn.Linear(24, 24), Doubled(24, 24), nn.Linear(24, 24)
    hooked.register_forward_hook(lambda layer, given, output: output + 1)
    replaced.forward = theirs = lambda x: x + 1
    model, x = nn.Sequential(hooked, doubled, replaced), torch.randn(4, 24)
    with torch.no_grad():
        right = model(x)
        with few_rows.written_fast(model):
            torch.testing.assert_close(model(x), right, rtol=1e-6, atol=1e-6)
            assert replaced.forward is theirs
    assert replaced.forward is theirs
    assert not any("forward" in vars(layer) for layer in (hooked, doubled))
    assert turned == [(4, 24)]


def test_texts_are_written_so_and_nothing_is_left_behind(turned, monkeypatch):
    config = TINY.replace(is_decoder=True, attention_type="original_full")
    model, (ids, *_) = models_torch.BigBirdForCausalLM.from_config(config), padded(2, 16)
    ids = ids.repeat(2, 1)
    found = model.generate(ids, max_new_tokens=4, eos_token_id=-1)
    assert turned
    assert not any("forward" in vars(module) for module in model.modules())
    monkeypatch.setattr(few_rows, "_FEW", ())
    turned.clear()
    assert torch.equal(model.generate(ids, max_new_tokens=4, eos_token_id=-1), found)
    assert turned == []
