"""Putting a fault into a twin's code: a function is replaced for a while, in the same way for both frameworks."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest import mock

from bigbird_port.schema.table import Framework

Function = Callable[..., Any]
Wrap = Callable[[Function], Function]
Injection = Callable[[Framework], AbstractContextManager[None]]
InReference = Callable[[], AbstractContextManager[Any]]
ATTEND = "attention.plain.attend"
_CALLED = {"torch": "forward", "flax": "__call__"}
_FLAX_CLASSES = {  # the others are called alike
    "BigBirdModel": "FlaxBigBirdModule",
    "BigBirdPegasusForConditionalGeneration": "FlaxBigBirdPegasusForConditionalGenerationModule",
}


def in_twin(path: str, wrap: Wrap) -> Injection:
    """Return what replaces ``path`` of the twin's package: "room.module.function" or
    "room.module.Class.method".

    The method "call" is forward, or __call__. Flax compiles anew while it lasts.
    """

    @contextmanager
    def inject(framework: Framework) -> Iterator[None]:
        modules, names = _divided(path)
        owner: Any = importlib.import_module(f"models_{framework}.{modules}")
        for name in names[:-1]:
            owner = getattr(owner, _FLAX_CLASSES.get(name, name) if framework == "flax" else name)
        name, change = _CALLED[framework] if names[-1] == "call" else names[-1], wrap
        if (framework, path) == ("flax", ATTEND):
            name, change = "attend_in_part", _in_part(wrap)
        with mock.patch.object(owner, name, change(getattr(owner, name))), _compiled_anew(framework, path):
            yield

    return inject


def _divided(path: str) -> tuple[str, list[str]]:
    """The module within the twin's package, and the names within the module: a room's modules are two parts."""
    parts = path.split(".")
    count = 2 if len(parts) > 2 else 1
    return ".".join(parts[:count]), parts[count:]


def _in_part(wrap: Wrap) -> Wrap:
    """What is done to attend, done to what Flax's attend and its block-sparse attention call: a part and its weight."""

    def changed(attend_in_part: Function) -> Function:
        def faulty(q: Any, k: Any, v: Any, bias: Any) -> tuple[Any, Any]:
            logs = []

            def attend(q: Any, k: Any, v: Any, bias: Any, dropout: Any = None) -> Any:
                context, log = attend_in_part(q, k, v, bias)
                logs.append(log)
                return context

            return wrap(attend)(q, k, v, bias), logs[-1]

        return faulty

    return changed


# What of parity/witnesses/with_flax.py is compiled from a module of the twin, whose own layers are compiled anew
# always. Key lists are no part of it, they are passed to it; the embeddings' Dropout is everybody's.
_PEGASUS = "parity.witnesses.pegasus.with_flax"
_COMPILED_FROM: dict[str, tuple[str | tuple[str, str], ...]] = {
    "bigbird.encoder.layer_pattern": (),
    "attention.plain": ("_compiled_layer",),
    "bigbird.layer": ("_compiled_layer",),
    "bigbird.embeddings": ("_compiled_layer", "_compiled"),
    "bigbird.model": ("_compiled",),
    "bigbird.tasks": ("_compiled",),
    "bigbird.heads": ("_compiled",),
    "losses": ("_compiled_loss",),
    "pegasus": (
        *((_PEGASUS, "compiled_embeddings"), (_PEGASUS, "compiled_layer")),
        *((_PEGASUS, "compiled_logits"), (_PEGASUS, "compiled_step")),
    ),
}


@contextmanager
def _compiled_anew(framework: Framework, path: str) -> Iterator[None]:
    """Flax's compiled functions hold what they were compiled from: others for as long as the fault lasts."""
    if framework == "torch":
        yield
        return
    known = (path, _divided(path)[0], path.partition(".")[0])
    names = _COMPILED_FROM[next(name for name in known if name in _COMPILED_FROM)]
    encoder: Any = importlib.import_module("models_flax.bigbird.encoder")
    stacks: Any = importlib.import_module("models_flax.pegasus.stacks")
    with ExitStack() as stack:
        for module, name, anew in (
            (encoder, "_KINDS", encoder.layer_kinds(encoder.BigBirdLayer)),
            (stacks, "_KINDS", stacks.layer_kinds(stacks.BigBirdPegasusEncoderLayer)),
            (stacks, "_CompiledDecoderLayer", stacks._compiled_decoder_layer()),
        ):
            stack.enter_context(mock.patch.object(module, name, anew))
        for place in names:
            where, name = place if isinstance(place, tuple) else ("parity.witnesses.with_flax", place)
            module = importlib.import_module(where)
            anew = functools.lru_cache(maxsize=64)(getattr(module, name).__wrapped__)
            stack.enter_context(mock.patch.object(module, name, anew))
        yield
