"""Probes of the torch twin.

Legend: B batch, L length, D hidden.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np

from parity.mutants.probes.probe import CONFIG, draw, padded_ids

Found = Iterator[tuple[str, Any]]


def _model(head: str, **fields: Any) -> Any:
    """A small model of a head whose biases and scales are drawn as well."""
    import torch

    from bigbird_port.families.bigbird.config import BigBirdConfig

    config = BigBirdConfig(**CONFIG).for_head(head).replace(**fields)
    model = config.family.model_class(head, "torch").from_config(config, seed=1).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def _heads() -> list[str]:
    from bigbird_port.families.registry import default_family

    return list(default_family().heads)


def _decoder() -> str:
    from bigbird_port.families.registry import default_family

    return next(head.name for head in default_family().heads.values() if head.decodes)


def _inputs(head: str, config: Any, B: int, L: int) -> dict[str, Any]:
    """Padded ids as a head takes them, and labels."""
    import torch

    from parity.given.inputs import for_head
    from parity.measure.losses import make_labels

    inputs = for_head({"input_ids": padded_ids(B, L)}, head, config)
    labels = {} if config.family.heads[head].no_loss else make_labels(config, head, inputs, 0)
    return {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in (inputs | labels).items()}


def _with_gradients(model: Any, **arguments: Any) -> Found:
    model.zero_grad()
    output = model(**arguments)
    loss = getattr(output, "loss", None)
    (output[0].float().square().mean() if loss is None else loss).backward()
    yield "output", output
    yield "gradients", {name: x.grad for name, x in model.named_parameters() if x.grad is not None}


def _named(name: str, found: Found) -> Found:
    for part, value in found:
        yield f"{name} {part}", value


def _calls() -> Found:
    for head in _heads():
        model = _model(head)
        for B, L in ((3, 100), (1, 64)):
            every = {"output_hidden_states": True, "output_attentions": True, "output_taps": True}
            yield f"{head} {B}x{L}", model(**_inputs(head, model.config, B, L), **every)
        yield f"{head} tuple", model(**_inputs(head, model.config, 1, 20), return_dict=False)


def _gradients() -> Found:
    for head in _heads():
        model = _model(head)
        for B, L in ((3, 100), (1, 330)):
            yield from _named(f"{head} {B}x{L}", _with_gradients(model, **_inputs(head, model.config, B, L)))


def _given() -> Found:
    import torch

    ids = torch.from_numpy(padded_ids(3, 90))
    mask = torch.from_numpy((np.random.default_rng(1).random((3, 90)) < 0.7).astype(np.int64))
    beside = {"token_type_ids": (ids % 2), "position_ids": torch.arange(90).flip(0)[None].expand(3, 90)}
    for head, fields in ((_heads()[0], {}), (_heads()[0], {"attention_type": "original_full"}), (_decoder(), {})):
        model = _model(head, **fields)
        yield f"{head} {fields} given", model(ids, attention_mask=mask, **beside, output_hidden_states=True)
        yield f"{head} {fields} head mask", model(ids, head_mask=torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
        yield f"{head} {fields} one head mask", model(ids, head_mask=torch.tensor([1.0, 0.5]), output_attentions=True)
        words = model.get_input_embeddings()(ids)
        yield f"{head} {fields} embeddings", model(inputs_embeds=words, attention_mask=(ids != 0).long())
        if fields or head != _heads()[0]:
            square = torch.from_numpy((np.random.default_rng(2).random((3, 90, 90)) < 0.5).astype(np.int64))
            yield f"{head} {fields} 3-D", model(ids, attention_mask=square)


def _labels() -> Found:
    import torch

    for problem, labels in (
        ("regression", torch.from_numpy(draw(3, 3))),
        ("multi_label_classification", torch.tensor([[1.0, 0, 1], [0, 0, 1], [1, 1, 1]])),
        (None, torch.tensor([0, 2, 1])),
    ):
        for style in ("original", "transformers"):
            for head in _heads():
                model = _model(head, problem_type=problem, classifier_style=style)
                if model.config.family.heads[head].labels == "classes":
                    ids = torch.from_numpy(padded_ids(3, 40))
                    yield from _named(f"{problem} {style}", _with_gradients(model, input_ids=ids, labels=labels))
    single = torch.from_numpy(draw(3, 1))
    for head in _heads():
        own = _model(head).config.family.heads[head]
        ids = torch.from_numpy(padded_ids(3, 40))
        if own.labels == "classes":
            yield "regression of one", _model(head, num_labels=1)(ids, labels=single[:, 0])
        elif own.labels == "spans":
            ends = {"start_positions": torch.tensor([4, 50, -3]), "end_positions": torch.tensor([9, 60, 5])}
            yield "beyond the end", _model(head)(ids, **ends)
            yield "question lengths", _model(head)(ids, question_lengths=torch.tensor([2, 7, 1]), **ends)
        elif "labels" in own.labels or own.labels == "class of each token":
            ignored = torch.where(ids % 3 == 0, -100, ids % 3)
            yield f"{head} ignored", _model(head)(ids, labels=ignored)


def _cache() -> Found:
    import torch

    from models_torch.bigbird.cache import init_cache

    ids = torch.from_numpy(padded_ids(2, 90)[:, ::-1].copy())  # padding in front
    for cross in (False, True):
        model = _model(_decoder(), add_cross_attention=cross)
        encoder = {}
        if cross:
            encoder = {"encoder_hidden_states": torch.from_numpy(draw(2, 9, 16))}
            encoder["encoder_attention_mask"] = (torch.arange(9) < torch.tensor([[9], [4]])).long()
        mask, past, start = (ids != 0).long(), init_cache(model.config, 2, 90) if cross else None, 0
        for size in (30, 1, 1, 7, 40, 1, 5):
            end = start + size
            some, seen = ids[:, start:end], mask[:, :end]
            output = model(
                some, attention_mask=seen, past_key_values=past, use_cache=True, output_attentions=True, **encoder
            )
            past, start = output.past_key_values, end
            yield f"cross {cross}, to {end}", output
        yield f"cross {cross}, at once", model(ids, **encoder, output_attentions=True)


def _generated() -> Found:
    import torch

    model, ids = _model(_decoder()), torch.from_numpy(padded_ids(3, 12)[:, ::-1].copy())
    yield "greedy", model.generate(ids, max_new_tokens=9)
    yield "ends", model.generate(ids, max_new_tokens=20, eos_token_id=list(range(6, 40)), pad_token_id=3)
    mask = torch.from_numpy(padded_ids(3, 12) != 0).long()
    yield "padded behind", model.generate(torch.from_numpy(padded_ids(3, 12)), max_new_tokens=5, attention_mask=mask)
    for settings in (
        {"temperature": 0.7},
        {"top_k": 3},
        {"top_p": 0.6},
        {"top_k": 20, "top_p": 0.9, "temperature": 2.0},
    ):
        yield (
            f"drawn {settings}",
            model.generate(ids, max_new_tokens=6, do_sample=True, seed=4, eos_token_id=-1, **settings),
        )


def _training() -> Found:
    import torch

    for head in _heads():
        for fields in ({}, {"attention_type": "original_full"}, {"random_blocks": "resample"}):
            model = _model(head, **fields).train()
            given = _inputs(head, model.config, 2, 70)
            for checkpointing in (False, True):
                if checkpointing:
                    model.gradient_checkpointing_enable()
                torch.manual_seed(5)
                more = {"generator": torch.Generator().manual_seed(3)} if "random_blocks" in fields else {}
                yield from _named(f"{head} {fields} {checkpointing}", _with_gradients(model, **given, **more))


def _formulations() -> Found:
    from bigbird_port.sparse import formulation as room

    usual = room.formulation("torch", "cpu")
    for changes in (
        {"heads_at_once": None, "blocks_at_once": 3},
        {"fused": True, "onednn_from": None},
        {"onednn_from": 1},
        {"scores_at_once": 300},
        {"onednn_from": None, "blocks_at_once": None},
    ):
        wide = mock.patch("models_torch.attention.onednn._wide_vectors", return_value=True)  # also where MKL is faster
        with wide, mock.patch.dict(room.FORMULATIONS, {("torch", "cpu"): replace(usual, **changes)}):
            for head in (_heads()[0], _decoder()):
                model = _model(head)
                found = _with_gradients(model, **_inputs(head, model.config, 2, 330))
                yield from _named(f"{changes} {head}", found)


def _dtypes() -> Found:
    import torch

    for head in _heads():
        for dtype in (torch.bfloat16, torch.float16, torch.float64):
            model = _model(head).to(dtype)
            given = {name: x for name, x in _inputs(head, model.config, 2, 70).items() if x.dtype != torch.float32}
            yield f"{head} {dtype}", model(**given)
        model = _model(head)
        with torch.autocast("cpu", torch.bfloat16):
            yield f"{head} autocast", model(**_inputs(head, model.config, 2, 70))


def _folders() -> Found:
    import torch

    for head in _heads():
        model = _model(head)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            again = type(model).from_pretrained(folder)
        yield f"{head} again", again.state_dict()
        yield f"{head} output", again(**_inputs(head, again.config, 1, 20))
        yield f"{head} numbers", (model.num_parameters(), model.num_parameters(True, True), again.initialised)
        longer = model.extend_positions(1500, max_encoder_length=1200)
        yield f"{head} longer", longer(torch.from_numpy(padded_ids(1, 1150))) if head == _heads()[0] else None
        model.resize_token_embeddings(70)
        yield f"{head} resized", model.state_dict()
        if not model.config.is_decoder:
            model.set_attention_type("original_full")
            yield f"{head} full", model(**_inputs(head, model.config, 1, 40))


def _long() -> Found:
    import torch

    for length, fields in ((1024, {"max_encoder_length": 1024}), (700, {"max_encoder_length": 1088}), (528, {})):
        model = _model(_heads()[0], num_hidden_layers=1, rescale_embeddings=True, use_bias=False, **fields)
        ids = torch.from_numpy(padded_ids(2, length))
        yield f"{length}", model(ids, output_attentions=True)
    for act in ("gelu", "gelu_new", "relu", "selu", "tanh", "linear"):
        yield act, _model(_heads()[0], hidden_act=act)(torch.from_numpy(padded_ids(1, 20)))


def _inference() -> Found:
    import torch

    from models_torch.inference import fast_linears

    model = _model(_heads()[0])
    with fast_linears(model) as count, torch.no_grad():
        yield "fast", model(torch.from_numpy(padded_ids(2, 40)))
        yield "count", count


def _derivatives() -> Found:
    import torch

    from models_torch.attention.block_sparse import block_sparse_attention
    from models_torch.bigbird.encoder import encoder_lists

    config = _model(_heads()[0]).config
    lists: Any = encoder_lists(config, 0, 64, torch.device("cpu"))
    mask = torch.ones(2, 64, dtype=torch.bool)
    qkv = tuple(torch.from_numpy(draw(2, 2, 64, 8, seed=i)) for i in range(3))

    def run(q: Any, k: Any, v: Any) -> Any:
        return block_sparse_attention(q, k, v, mask, lists, config.block_size)

    yield "forward mode", torch.func.jvp(run, qkv, tuple(x.flip(0) for x in qkv))
    given = tuple(x.requires_grad_() for x in qkv)
    first = torch.autograd.grad(run(*given).square().sum(), given, create_graph=True)
    yield "second", torch.autograd.grad(torch.stack([x.square().sum() for x in first]).sum(), given)


PROBES: dict[str, Callable[[], Found]] = {
    "calls of every head, padded and alone, with all outputs": _calls,
    "gradients through the call": _gradients,
    "given masks, types, positions, embeddings, head masks": _given,
    "labels of all kinds": _labels,
    "caches, several new tokens, cross-attention": _cache,
    "generate, greedy and drawn, padded": _generated,
    "training with fixed dropout, checkpointing, redrawn blocks": _training,
    "other formulations: chunks, fused, oneDNN": _formulations,
    "bfloat16, float16, float64, autocast": _dtypes,
    "save, load, extend, resize": _folders,
    "long plans, rescaled, without biases, activations": _long,
    "fast linears": _inference,
    "forward mode and second derivatives": _derivatives,
}
