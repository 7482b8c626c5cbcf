"""torch on two processes (gloo, CPU): tensor parallelism, FSDP2 and DDP equal one process, forward and gradient."""

import functools
from contextlib import nullcontext
from unittest import mock

import pytest
import torch
from torch import distributed

import models_torch
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.heads import HEADS
from models_torch import sharding
from models_torch.sharding import data_parallel, fully_sharded, make_mesh, partition_plan, tensor_parallel
from tests.models.gloo import run_in_processes

CONFIG = BigBirdConfig(
    vocab_size=70,
    hidden_size=16,
    num_attention_heads=4,
    num_hidden_layers=2,
    intermediate_size=24,
    max_position_embeddings=640,
    block_size=16,
    num_random_blocks=2,
    initializer_range=0.3,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
CASES = (
    ("pretraining", ("tensor",)),
    ("qa", ("tensor",)),
    ("qa", ("tensor", "fault")),
    ("pretraining", ("fsdp",)),
    ("pretraining", ("ddp",)),
)
LENGTH = 530  # block-sparse; not a multiple of the block


def batch(head):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 64, (2, LENGTH), generator=generator)
    ids[1, 400:] = 0
    ids[:, 7] = CONFIG.sep_token_id
    labels = {"labels": torch.randint(1, 64, (2, LENGTH), generator=generator)}
    if head == "pretraining":
        labels["next_sentence_label"] = torch.tensor([0, 1])
    if head == "qa":
        labels = {"start_positions": torch.tensor([20, 30]), "end_positions": torch.tensor([25, 390])}
    return {"input_ids": ids, "head_mask": torch.tensor([1.0, 0.5, 2.0, 0.25])} | labels


def build(head, config=CONFIG):
    return getattr(models_torch, HEADS[head].class_name).from_config(config.replace(sep_token_id=66)).eval()


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def scores(output):
    names = ("prediction_logits", "seq_relationship_logits", "logits", "start_logits", "end_logits")
    return {name: getattr(output, name).detach() for name in names if getattr(output, name, None) is not None}


def part_of(inputs, rank, pieces):
    """A process's texts; a mask of heads is for all."""
    return {name: x if name == "head_mask" else x.chunk(pieces)[rank] for name, x in inputs.items()}


def first_heads(module, arguments, axis, own_heads):
    """The fault: the key lists of the first heads, whichever the process has."""
    lists = arguments[2]
    pieces = axis.size()
    first = {name: getattr(lists, name).chunk(pieces)[0].repeat(pieces, 1, 1) for name in ("key_blocks", "counts")}
    return own_heads(module, (*arguments[:2], lists._replace(**first), *arguments[3:]), axis)


def run_case(head, ways):
    """One process runs its part of the batch; scores, whole gradients, and shapes of its parameters."""
    data = 2 if {"fsdp", "ddp"} & set(ways) else 1
    mesh = make_mesh(data=data, model=distributed.get_world_size() // data, device_type="cpu")
    model = build(head)
    run = model
    if "tensor" in ways:
        own_heads = functools.partial(first_heads, own_heads=sharding._own_heads)
        with mock.patch.object(sharding, "_own_heads", own_heads) if "fault" in ways else nullcontext():
            tensor_parallel(model, mesh)
    if "fsdp" in ways:
        fully_sharded(model, mesh)
    if "ddp" in ways:
        run = data_parallel(model, mesh)
    output = run(**part_of(batch(head), mesh["data"].get_local_rank(), data))
    output.loss.backward()
    local = {name: tuple(getattr(p, "_local_tensor", p).shape) for name, p in model.named_parameters()}
    gradients = {name: whole(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    return {"scores": scores(output), "gradients": gradients, "local": local}


def run_cases(rank, cases):
    """One process runs all cases, one after the other."""
    return [run_case(*case) for case in cases]


def spawn(folder, size, cases):
    """What every process found, by case."""
    found = run_in_processes(run_cases, folder, size, cases)
    return dict(zip(cases, zip(*found, strict=True), strict=True))


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    return spawn(tmp_path_factory.mktemp("two"), 2, CASES)


def check(found, head, pieces):
    """Every process has the whole gradient, and of the scores its own texts."""
    model = build(head)
    inputs = batch(head)
    # the mean over processes of each one's mean loss
    losses = [model(**part_of(inputs, i, pieces)) for i in range(pieces)]
    (sum(output.loss for output in losses) / pieces).backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for rank, one in enumerate(found):
        assert one["gradients"].keys() == expected.keys()
        for name, gradient in expected.items():
            assert (one["gradients"][name] - gradient).abs().max() < 1e-5 * max(1, gradient.abs().max()), name
        texts = losses[rank * pieces // len(found)]
        for name, score in scores(texts).items():
            assert (one["scores"][name] - score).abs().max() < 1e-5 * score.abs().max(), name


@pytest.mark.parametrize("head", ["pretraining", "qa"])
def test_tensor_parallel_equals_one_process(two_processes, head):
    found = two_processes[head, ("tensor",)]
    check(found, head, 1)
    local = found[0]["local"]
    assert local["bert.encoder.layer.0.attention.self.query.weight"] == (8, 16)
    assert local["bert.encoder.layer.0.attention.output.dense.weight"] == (16, 8)
    assert local["bert.encoder.layer.1.output.dense.weight"] == (16, 12)
    assert local["bert.embeddings.word_embeddings.weight"] == (35, 16)


@pytest.mark.parametrize("way", ["fsdp", "ddp"])
def test_data_parallel_equals_one_process(two_processes, way):
    found = two_processes["pretraining", (way,)]
    check(found, "pretraining", 2)
    rows = found[0]["local"]["bert.encoder.layer.0.intermediate.dense.weight"][0]
    assert rows == (12 if way == "fsdp" else 24)


@pytest.mark.slow
def test_fsdp_and_tensor_parallel_compose(tmp_path):
    case = "pretraining", ("tensor", "fsdp")
    found = spawn(tmp_path, 4, (case,))[case]
    check(found, "pretraining", 2)
    assert found[0]["local"]["bert.encoder.layer.0.intermediate.dense.weight"] == (6, 16)


def test_the_comparison_sees_another_process_key_lists(two_processes):
    """Negative control: with the first heads' random blocks on both processes, the second one's scores are off."""
    with pytest.raises(AssertionError):
        check(two_processes["qa", ("tensor", "fault")], "qa", 1)


def test_the_plan_follows_from_the_table():
    plan = partition_plan(CONFIG, "qa", {"model": 2})
    styles = {name.removeprefix("bert."): type(style).__name__ for name, style in plan.items() if ".1." not in name}
    column, row = "ColwiseParallel", "RowwiseParallel"
    assert styles == {
        "embeddings.word_embeddings": row,
        **{f"encoder.layer.0.attention.self.{name}": column for name in ("query", "key", "value")},
        "encoder.layer.0.attention.output.dense": row,
        "encoder.layer.0.intermediate.dense": column,
        "encoder.layer.0.output.dense": row,
        "qa_classifier.intermediate.dense": column,
        "qa_classifier.output.dense": row,
    }
    assert "bert.embeddings.word_embeddings" not in partition_plan(CONFIG.replace(vocab_size=71), "qa", {"model": 2})
    with pytest.raises(ValueError, match="num_attention_heads is 4, which model=3 does not divide"):
        partition_plan(CONFIG, "qa", {"model": 3})
