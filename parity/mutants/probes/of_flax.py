"""Probes of the Flax twin.

Legend: B batch, L length, D hidden.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from parity.mutants.probes.probe import CONFIG, draw, padded_ids

Found = Iterator[tuple[str, Any]]


def _model(head: str, changes: dict[str, Any] | None = None, **options: Any) -> Any:
    """A small model of a head whose biases and scales are drawn as well."""
    import jax

    from bigbird_port.families.bigbird.config import BigBirdConfig

    config = BigBirdConfig(**CONFIG).for_head(head).replace(**changes or {})
    model = config.family.model_class(head, "flax")(config, None, 1, **options)
    rng = np.random.default_rng(0)
    model.params = jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape).astype(np.float32), model.params)
    return model


def _heads() -> list[str]:
    from bigbird_port.families.registry import default_family

    return list(default_family().heads)


def _decoder() -> str:
    from bigbird_port.families.registry import default_family

    return next(head.name for head in default_family().heads.values() if head.decodes)


def _inputs(head: str, config: Any, B: int, L: int) -> dict[str, Any]:
    """Padded ids as a head takes them."""
    from parity.given.inputs import for_head

    return for_head({"input_ids": padded_ids(B, L).astype(np.int32)}, head, config)


def _loss(model: Any, head: str, output: Any, labels: dict[str, Any]) -> Any:
    """The sum of a head's losses; of a head without, the mean square of what it returns first."""
    import models_flax.losses as losses
    from parity.measure.losses import total_loss

    if not labels:
        return (output[0] ** 2).mean()
    scores = dict(zip(output.keys(), output.to_tuple(), strict=True))
    return total_loss(losses, model.config, head, scores, labels)


def _with_gradients(model: Any, head: str, B: int, L: int, **options: Any) -> Found:
    """Loss, output and gradients of a call whose inputs are known, so that padding is left out, and of a jitted one."""
    import jax

    from parity.measure.losses import make_labels

    inputs = _inputs(head, model.config, B, L)
    own = model.config.family.heads[head]
    labels = {} if own.no_loss else make_labels(model.config, head, inputs, 0)

    def loss(params: Any) -> Any:
        output = model(**inputs, params=params, **options)
        return _loss(model, head, output, labels), output

    (value, output), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(model.params)
    yield "loss", value
    yield "output", output
    yield "gradients", gradients


def _named(name: str, found: Found) -> Found:
    for part, value in found:
        yield f"{name} {part}", value


def _calls() -> Found:
    import jax

    asked = {"output_hidden_states": True, "output_attentions": True, "output_taps": True}
    for head in _heads():
        first = head == _heads()[0]
        model = _model(head, {} if first else {"num_hidden_layers": 1})
        for B, L in ((3, 100), (1, 64)) if first else ((2, 40),):
            inputs = _inputs(head, model.config, B, L)
            known = jax.jit(lambda params, m=model, x=inputs | asked: m(**x, params=params))
            yield f"{head} {B}x{L}", known(model.params)
            yield f"{head} {B}x{L} traced", jax.jit(lambda x, m=model: m(**x).to_tuple())(inputs)


def _gradients() -> Found:
    yield from _named("padded", _with_gradients(_model(_heads()[0]), _heads()[0], 3, 100))
    for head in _heads()[1:]:
        model = _model(head, {"num_hidden_layers": 1})
        yield from _named(head, _with_gradients(model, head, 2, 40))


def _given() -> Found:
    import jax

    ids = padded_ids(3, 90).astype(np.int32)
    mask = (np.random.default_rng(1).random((3, 90)) < 0.7).astype(np.int32)
    square = (np.random.default_rng(2).random((3, 90, 90)) < 0.5).astype(np.int32)
    beside = {"token_type_ids": ids % 2, "position_ids": np.broadcast_to(np.arange(90)[::-1], (3, 90)).astype(np.int32)}
    full = {"attention_type": "original_full"}
    for head, changes in ((_heads()[0], {}), (_heads()[0], full), (_decoder(), {})):
        model, name = _model(head, changes), f"{head} {changes}"
        calls: dict[str, dict[str, Any]] = {
            "given": {"attention_mask": mask, **beside},
            "head mask": {"head_mask": np.array([[1.0, 0.5], [0.0, 1.0]], np.float32), "output_attentions": True},
        }
        if changes or head != _heads()[0]:
            calls["3-D"] = {"attention_mask": square}
        for call, arguments in calls.items():
            run = jax.jit(lambda params, m=model, x=arguments: m(ids, **x, params=params).to_tuple())
            yield f"{name} {call}", run(model.params)


def _labels() -> Found:
    import importlib

    losses: Any = importlib.import_module("models_flax.losses")
    logits, classes = draw(4, 3), np.array([0, 2, -100, 1])
    for problem, labels in (("regression", draw(4, 3, seed=2)), ("multi_label_classification", (logits > 0) * 1.0)):
        yield problem, losses.classification_loss(logits, labels, 3, problem)
    yield "regression of one", losses.classification_loss(draw(4, 1), draw(4, seed=3), 1, None)
    yield "classes", losses.classification_loss(logits, np.abs(classes) % 3, 3, None)
    words, targets = draw(2, 9, 7), np.random.default_rng(0).integers(0, 7, (2, 9))
    targets[:, ::3] = -100
    for name in ("masked_lm_loss", "causal_lm_loss", "token_classification_loss"):
        yield name, getattr(losses, name)(words, targets)
        yield f"{name} of nothing", getattr(losses, name)(words, np.full_like(targets, -100))
    for ends in (np.array([3, 4]), np.array([12, 5]), np.array([-2, 8])):
        yield f"spans {ends}", losses.question_answering_loss(draw(2, 9), draw(2, 9, seed=4), ends, ends[::-1])


def _cache() -> Found:
    import jax

    ids = padded_ids(2, 90)[:, ::-1].astype(np.int32)  # padding in front
    for cross in (False, True):
        model = _model(_decoder(), {"add_cross_attention": cross})
        encoder = {}
        if cross:
            encoder = {"encoder_hidden_states": draw(2, 9, 16)}
            encoder["encoder_attention_mask"] = (np.arange(9) < np.array([[9], [4]])).astype(np.int32)
        step = jax.jit(lambda new, past, m=model, e=encoder: m(new, past_key_values=past, **e))
        past, start = model.init_cache(2, 92), 0
        for size in (30, 1, 1, 7, 40, 1):
            output = step(ids[:, start : start + size], past)
            past, start = output.past_key_values, start + size
            yield f"cross {cross}, to {start}", output
        yield f"cross {cross}, at once", jax.jit(lambda x, m=model, e=encoder: m(x, **e))(ids)


def _generated() -> Found:
    model, ids = _model(_decoder()), padded_ids(3, 12)[:, ::-1].astype(np.int32)
    yield "greedy", model.generate(ids, max_new_tokens=9)
    yield "ends", model.generate(ids, max_new_tokens=9, eos_token_id=list(range(6, 40)), pad_token_id=3)
    settings = {"top_k": 20, "top_p": 0.9, "temperature": 2.0, "eos_token_id": -1}
    yield "drawn", model.generate(ids, max_new_tokens=4, do_sample=True, seed=4, **settings)
    yield "padded behind", model.generate(padded_ids(3, 12).astype(np.int32), max_new_tokens=4)


def _folders() -> Found:
    for head in _heads():
        model = _model(head)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            again = type(model).from_pretrained(folder)
        yield f"{head} again", again.params
        yield f"{head} numbers", (again.num_parameters(), again.initialised)
        yield f"{head} longer", model.extend_positions(1500, max_encoder_length=1200).params
        yield f"{head} half", model.to_bf16(model.params)


PROBES: dict[str, Callable[[], Found]] = {
    "calls of every head, padded and alone, with all outputs": _calls,
    "gradients through the call": _gradients,
    "given masks, types, positions, head masks": _given,
    "labels of all kinds": _labels,
    "caches, several new tokens, cross-attention": _cache,
    "generate, greedy and drawn, padded": _generated,
    "save, load, extend": _folders,
}
