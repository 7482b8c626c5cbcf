"""Torch on CUDA without CUDA: what a forward and its gradient ask of a fake device, and what the host waits for."""

from unittest import mock

import pytest
import torch

import models_torch
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.formulation import formulation
from bigbird_port.sparse.pattern import layer_pattern
from models_torch import host
from models_torch.attention import batched, kept
from models_torch.attention.lists import key_lists
from tests.devices.counting import RACING, count, device

FORWARD, WITH_GRADIENT = 40, 100  # operations a layer
CONFIG = BigBirdConfig(
    vocab_size=90,
    hidden_size=32,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=1024,
    block_size=16,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    sep_token_id=3,
)


def maker(layers):
    return lambda: models_torch.BigBirdModel(CONFIG.replace(num_hidden_layers=layers))


def reader(*ends):
    """What the host reads: extents that are right, and the ends of the texts; and how often it reads."""
    calls = []

    def read(numbers):
        calls.append(len(numbers))
        return [0] * (len(numbers) - len(ends)) + list(ends)

    return read, calls


def a_layer(batch, grad, **changes):
    """The operations of one layer more; meta stands for CUDA in gradients, which a CPU's autograd refuses."""
    name = "meta" if grad else "cuda"
    one, two = (
        count(maker(layers), (batch, 1024), name, grad, read=reader(*[1024] * batch)[0], **changes) for layers in (1, 2)
    )
    return two.operations - one.operations


@pytest.mark.parametrize(("grad", "most"), [(False, FORWARD), (True, WITH_GRADIENT)], ids=["forward", "gradient"])
def test_a_layer_asks_for_few_operations_however_many_texts(grad, most):
    one, eight = a_layer(1, grad), a_layer(8, grad)
    assert one == eight
    assert 20 < one.total() <= most
    assert not set(one) & RACING


def test_a_loop_over_texts_is_seen():
    """The negative control: the CPU's way grows with the batch, and its gradient adds up in a race."""
    looped = {"batched": False, "blocks_at_once": 64}
    one, eight = a_layer(1, False, **looped), a_layer(8, False, **looped)
    assert eight.total() > 4 * one.total()
    assert eight.total() > FORWARD
    assert set(a_layer(1, True, **looped)) & RACING


def test_a_forward_reads_once_and_brings_nothing_for_its_layers():
    read, calls = reader(1024, 1024)
    found = count(maker(2), (2, 1024), read=read)
    assert len(calls) == 2  # two calls of the model
    assert (found.reads, found.copies) == (0, 0)


def test_texts_are_packed_by_what_was_read():
    read, calls = reader(1000, 40)
    padded = count(maker(2), (2, 1024), mask=torch.ones(2, 1024, dtype=torch.long), read=read)
    assert len(calls) == 2
    assert padded.copies == 1  # where the blocks of the row are
    assert padded.largest < count(maker(2), (2, 1024), read=reader(1024, 1024)[0]).largest


def test_labels_are_read_with_the_inputs():
    read, calls = reader(1024)
    model = models_torch.BigBirdForMaskedLM(CONFIG.replace(num_hidden_layers=1))
    with device("cuda", read):
        ids = torch.ones(1, 1024, dtype=torch.long, device="cuda")
        with host.together((ids, 3.0, None)):
            assert host.look([ids], ids.bool()).extents == [(0, 0)]
            assert host.extent_beside(ids) == (0, 0)
        assert host.extent_beside(ids) is None
    assert calls == [2 + 2 + 1]  # least and greatest of ids and of labels, and one end
    assert model.config.vocab_size == 90


def test_what_is_read_is_right(monkeypatch):
    """On a CPU, where the same is looked at: extents of ids and of the labels that count, and the ends."""
    monkeypatch.setattr(host, "is_far", lambda x: True)
    ids, labels = torch.tensor([[3, 7], [0, 5]]), torch.tensor([[-100, 2], [1, -100]])
    with host.together((labels, torch.ones(2), "text")):
        found = host.look([ids], torch.tensor([[True, True], [False, False]]))
        assert found.extents == [(0, 7)]
        assert found.ends.tolist() == [2, 0]
        assert host.extent_beside(labels) == host.extent_beside(labels.flatten()) == (0, 2)


@pytest.mark.parametrize(("name", "value"), [("input_ids", 90), ("token_type_ids", 2), ("labels", -3)])
def test_wrong_values_are_told_on_a_device_too(name, value, monkeypatch):
    monkeypatch.setattr(host, "is_far", lambda x: True)
    model = models_torch.BigBirdForMaskedLM(CONFIG.replace(num_hidden_layers=1))
    given = {x: torch.zeros(1, 20, dtype=torch.long) for x in ("input_ids", "token_type_ids", "labels")}
    assert model(**given).loss > 0
    given[name][0, 7] = value
    with pytest.raises(ValueError, match=rf"{name} at \[0, 7\] is {value}, expected 0 \.\. "):
        model(**given)


def test_nothing_is_read_while_a_graph_is_captured():
    read, calls = reader()
    with device("cuda", read):
        with torch.device("cuda"):
            model = maker(1)().eval()
        ids = torch.ones(1, 1024, dtype=torch.long, device="cuda")
        capturing = mock.patch.object(host, "is_capturing", return_value=True)
        with capturing, torch.no_grad(), pytest.raises(ValueError, match="call the model once"):
            model(ids)
        with mock.patch.object(host, "_read", reader(1024)[0]), torch.no_grad():
            model(ids)
        with capturing, torch.no_grad():
            model(ids)
        assert kept._pinned
    assert calls == []


def test_lists_are_kept_within_bounds(monkeypatch):
    meta = torch.device("meta")
    with device("meta"):
        first = layer_pattern(CONFIG, 0, 1024)
        lists = key_lists(first, meta)
        assert key_lists(first, meta) is lists
        monkeypatch.setattr(kept, "LIMIT", 3 * kept.size_of(lists))
        others = [key_lists(layer_pattern(CONFIG, seed, 1024), meta) for seed in range(1, 6)]
        assert 1 < len(kept._kept) <= 3
        assert key_lists(first, meta) is not lists
        assert len({id(x) for x in others}) == 5
    assert not kept._kept


def test_what_is_kept_serves_training_though_it_was_made_in_inference():
    with device("meta"), torch.inference_mode():
        lists = key_lists(layer_pattern(CONFIG, 0, 1024), torch.device("meta"))
        assert not lists.tables.blocks.is_inference()


def test_what_is_gathered_is_bounded():
    pattern = layer_pattern(CONFIG, 0, 1024)
    with device("meta"):
        tables = key_lists(pattern, torch.device("meta")).tables
    T, S = tables.blocks.shape[1:]
    for limit, chunks in ((None, 1), (2 * T * S * 16 * 32, 1), (2 * T * S * 16 * 32 - 1, 2), (1, T)):
        found = list(batched.Batch(tables, 16, limit).chunks(2, 32))
        assert len(found) == chunks
        assert [x.start for x in found[1:]] == [x.stop for x in found[:-1]]
        assert (found[0].start, found[-1].stop) == (0, T)
    assert formulation("torch", "cuda").gathered_at_once
