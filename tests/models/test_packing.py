"""A batch packed into one row of the blocks that hold text (torch): real tokens get what the padded batch gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import models_torch
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.formulation import FORMULATIONS, Formulation
from models_torch.bigbird.encoder import _Row
from parity.given.golden import read_golden
from tests.conftest import GOLDEN

LIMIT = 2e-6  # times the largest magnitude: matrix products of other shapes add up in another order
CONFIG = BigBirdConfig(
    vocab_size=90,
    hidden_size=16,
    num_attention_heads=2,
    num_hidden_layers=2,
    intermediate_size=24,
    max_position_embeddings=1024,
    block_size=16,
    initializer_range=0.3,
    sep_token_id=3,
    max_encoder_length=1024,
)


def batch(lengths, padded, seed=0):
    ids = np.random.default_rng(seed).integers(4, 90, (len(lengths), padded))
    mask = np.arange(padded) < np.array(lengths)[:, None]
    return torch.from_numpy(ids), torch.from_numpy(mask)


def run(model, ids, mask, packed, **kwargs):
    model.encoder.skip_padding = packed
    return model(ids, mask, **kwargs)


def rows_run(model):
    """The tokens that each call of the first layer works on, as calls are made."""
    found = []
    model.encoder.layer[0].register_forward_pre_hook(lambda _, arguments: found.append(tuple(arguments[0].shape[:2])))
    return found


def gradients_of(model, ids, mask, packed, weight):
    """Of a sum over real tokens, weighed."""
    loss = (run(model, ids, mask, packed).last_hidden_state * weight * mask[..., None]).sum()
    return torch.autograd.grad(loss, [p for n, p in model.named_parameters() if "pooler" not in n])


def assert_same_gradients(found, expected):
    """In float64, to its rounding: the gradient of a key's bias is nothing else, which float32 would not tell."""
    largest = max(float(x.abs().max()) for x in expected)
    assert largest > 1
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float64
        assert (a - b).abs().max() <= 1e-12 * largest


@pytest.mark.parametrize(
    ("lengths", "padded", "config"),
    [
        ([1024, 1, 1009, 333], 1024, CONFIG),  # a full text, one token, the last global block in part
        ([600, 17, 900], 1000, CONFIG),  # not multiples of the block
        ([40], 700, CONFIG),
        ([700, 0, 16], 700, CONFIG),  # a text of nothing but padding
        ([1000, 300], 1000, CONFIG.replace(random_blocks="transformers")),  # folded repeats
        ([545, 300], 608, CONFIG.replace(max_encoder_length=None)),
    ],
    ids=["edges", "inside blocks", "one text", "no text", "repeats", "the batch's own pattern"],
)
def test_real_tokens_and_gradients_are_those_of_the_padded_batch(lengths, padded, config):
    model = models_torch.BigBirdModel.from_config(config, seed=2)
    ids, mask = batch(lengths, padded)
    shapes, weight = rows_run(model), torch.randn(len(lengths), padded, 16, generator=torch.Generator().manual_seed(0))
    outputs = [run(model, ids, mask, packed, output_hidden_states=True).hidden_states for packed in (True, False)]
    blocks = sum(max(1, -(-length // 16)) for length in lengths)
    assert shapes == [(1, blocks * 16), (len(lengths), padded)]
    for found, expected in zip(*outputs, strict=True):
        assert (found - expected)[mask].abs().max() < LIMIT * expected.abs().max()
        kept = torch.arange(padded) < torch.tensor([[max(1, -(-length // 16)) * 16] for length in lengths])
        assert not found[~kept].any()
    assert_same_gradients(*(gradients_of(model.double(), ids, mask, packed, weight) for packed in (True, False)))


def test_random_masks_with_holes():
    model, rng = models_torch.BigBirdModel.from_config(CONFIG, seed=2), np.random.default_rng(5)
    for seed in range(5):
        lengths = rng.integers(1, 900, 4)
        ids, mask = batch(lengths, 900, seed)
        mask &= torch.from_numpy(rng.random(mask.shape) < 0.7)
        with torch.no_grad():
            found, expected = (run(model, ids, mask, packed).last_hidden_state for packed in (True, False))
        assert (found - expected)[mask].abs().max() < LIMIT * expected.abs().max()


def test_a_row_that_is_off_by_one_block_is_seen(monkeypatch):
    """The negative control: every block of the row is the next one of the batch."""
    model = models_torch.BigBirdModel.from_config(CONFIG, seed=2)
    ids, mask = batch([900, 300], 900)
    right = _Row.pack
    monkeypatch.setattr(_Row, "pack", lambda self, x: right(self._replace(blocks=self.blocks + 1), x))
    with torch.no_grad():
        found, expected = (run(model, ids, mask, packed).last_hidden_state for packed in (True, False))
    assert (found - expected)[mask].abs().max() > 0.1


def test_the_batch_is_run_as_it_is_where_blocks_cannot_be_left_out():
    ids, mask = batch([700, 300], 700)
    model = models_torch.BigBirdModel.from_config(CONFIG, seed=2)
    shapes = rows_run(model)
    with torch.no_grad():
        model(ids, mask, output_attentions=True)
        model(ids, mask, output_taps=True)
        model(ids, torch.ones_like(mask))
        run(model, ids, mask, False)
    assert shapes == [(2, 700)] * 4
    full = models_torch.BigBirdModel.from_config(CONFIG.replace(attention_type="original_full"), seed=2)
    shapes = rows_run(full)
    with torch.no_grad():
        full(ids, mask)
    assert shapes == [(2, 700)]


CUDA = FORMULATIONS["torch", "cuda"]
OTHERS = [
    CUDA,
    replace(CUDA, heads_at_once=1, blocks_at_once=None),
    Formulation(None, 3, False, "all heads, odd chunks"),
]


@pytest.mark.parametrize("how", OTHERS, ids=["cuda", "head by head", "odd chunks"])
@pytest.mark.parametrize("packed", [True, False])
def test_every_formulation_computes_the_same(how, packed, monkeypatch):
    model = models_torch.BigBirdModel.from_config(CONFIG, seed=2)
    ids, mask = batch([1024, 1, 500], 1024)
    weight = torch.randn(3, 1024, 16, generator=torch.Generator().manual_seed(0))
    wide = models_torch.BigBirdModel.from_config(CONFIG, seed=2).double()

    def both():
        with torch.no_grad():
            hidden = run(model, ids, mask, packed).last_hidden_state
        return hidden, gradients_of(wide, ids, mask, packed, weight)

    expected, expected_gradients = both()
    monkeypatch.setitem(FORMULATIONS, ("torch", "cpu"), how)
    found, gradients = both()
    assert (found - expected)[mask].abs().max() < LIMIT * expected.abs().max()
    assert_same_gradients(gradients, expected_gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("how", [CUDA, FORMULATIONS["torch", "cpu"]], ids=["cuda", "cpu"])
def test_half_precision_in_every_formulation(how, dtype, monkeypatch):
    monkeypatch.setitem(FORMULATIONS, ("torch", "cpu"), how)
    model = models_torch.BigBirdModel.from_config(CONFIG.replace(initializer_range=0.1), seed=2)
    ids, mask = batch([1024, 500], 1024)
    with torch.no_grad():
        expected = model(ids, mask).last_hidden_state
        found = model.to(dtype)(ids, mask).last_hidden_state
    assert found.dtype == dtype
    assert (found - expected)[mask].abs().max() < 0.1 * expected.abs().max()
    assert (found - expected)[mask].abs().mean() < 0.01 * expected.abs().max()


class NoSynchronisation(TorchDispatchMode):
    """Refuses operations for which the host would wait for a device, or copy from it."""

    REFUSED = ("_local_scalar_dense", "nonzero", "_to_copy", "masked_select", "unique", "equal", "item")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        moved = name == "_to_copy" and not (kwargs or {}).get("device")  # to another type only
        if name.startswith(self.REFUSED) and not moved:
            raise RuntimeError(f"{name} inside a layer")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("how", [CUDA, FORMULATIONS["torch", "cpu"]], ids=["cuda", "cpu"])
def test_a_layer_never_waits_for_the_device(how, monkeypatch):
    monkeypatch.setitem(FORMULATIONS, ("torch", "cpu"), how)
    model = models_torch.BigBirdModel.from_config(CONFIG, seed=2)
    ids, mask = batch([1024, 500], 1024)
    with NoSynchronisation(), pytest.raises(RuntimeError, match="inside a layer"):
        model(ids, mask)  # the control: outside of the layers, arguments are looked at
    layer, inside = model.encoder.layer[0].forward, []

    def watched(*arguments):
        with NoSynchronisation():
            inside.append(arguments)
            return layer(*arguments)

    monkeypatch.setattr(model.encoder.layer[0], "forward", watched)
    model(ids, mask)
    assert len(inside) == 1


@pytest.mark.parametrize("how", [CUDA, FORMULATIONS["torch", "cpu"]], ids=["cuda", "cpu"])
@pytest.mark.parametrize("path", GOLDEN["mini-pretrain"].cases, ids=lambda path: path.stem)
def test_a_packed_batch_in_every_formulation_gives_the_originals_outputs(how, path, converted, monkeypatch):
    asked = []
    monkeypatch.setattr("models_torch.attention.lists.formulation", lambda *arguments: asked.append(arguments) or how)
    case = read_golden(path)
    out = converted("mini-pretrain")
    model = models_torch.BigBirdModel.from_pretrained(out, max_encoder_length=case.max_encoder_length)
    shapes = rows_run(model)
    with torch.no_grad():
        found = model(**{name: torch.from_numpy(x) for name, x in case.inputs.items()}).last_hidden_state.numpy()
    real = case.inputs["input_ids"] != 0
    assert shapes[0][0] == 1  # one row
    assert set(asked) == {("torch", "cpu")}
    np.testing.assert_allclose(found[real], case.tensors["sequence_output"][real], rtol=0, atol=1e-5)
