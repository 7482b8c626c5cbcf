"""Products of few rows in the other order: the same numbers, and only where nothing else is lost."""

import pytest
import torch
from torch import nn

from models_torch import few_rows


@pytest.fixture
def transposed(monkeypatch):
    """Counts the products that are made in the other order."""
    made = []
    own = few_rows.product
    monkeypatch.setattr(few_rows, "product", lambda *given: made.append(given[0].shape) or own(*given))
    return made


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4, 1, 24), (5, 24), (8, 24), (3, 1, 24), (2, 2, 24)])
def test_few_rows_give_the_same_numbers(transposed, shape, bias):
    torch.manual_seed(0)
    layer, x = nn.Linear(24, 40, bias=bias), torch.randn(shape)
    with torch.no_grad():
        found, right = few_rows.linear(layer, x), layer(x)
    assert transposed == [shape]
    assert found.is_contiguous()
    assert found.shape == right.shape
    torch.testing.assert_close(found, right, rtol=1e-6, atol=1e-6)


def test_what_else_a_layer_does_is_done(transposed):
    layer, x = nn.Linear(24, 40), torch.randn(4, 24)
    with torch.no_grad():
        layer.register_forward_hook(lambda layer, given, output: output + 1)
        assert (few_rows.linear(layer, x) == layer(x)).all()

        class Doubled(nn.Linear):
            def forward(self, x):
                return 2 * super().forward(x)

        doubled = Doubled(24, 40)
        assert (few_rows.linear(doubled, x) == doubled(x)).all()
    assert transposed == []


def test_gradients_other_types_and_other_numbers_of_rows_are_left_alone(transposed):
    layer = nn.Linear(24, 40)
    assert few_rows.linear(layer, torch.randn(4, 24)).requires_grad
    with torch.no_grad():
        for rows in (1, 2, 9, 100):
            few_rows.linear(layer, torch.randn(rows, 24))
        few_rows.linear(layer.double(), torch.randn(4, 24).double())
    assert transposed == []
