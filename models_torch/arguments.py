"""The forward of a model with a task head, made from the list of its arguments. Flax has one call for all heads."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

BY_KEYWORD = {"output_taps": False, "generator": None}  # what every forward takes beside its arguments


def forward_of(arguments: tuple[str, ...]) -> Callable[..., Any]:
    """A forward with these arguments, each None if left out, and output_taps and generator by keyword."""

    def forward(self: Any, *values: Any, **named: Any) -> Any:
        """Return scores and loss; the class says what its labels are, BigBirdModel what the other arguments are."""
        if len(values) > len(arguments):
            raise TypeError(f"forward takes {len(arguments)} arguments, but {len(values)} were given")
        given = dict(zip(arguments, values, strict=False))
        for name in named:
            if name in given or not (name in arguments or name in BY_KEYWORD):
                twice = "was given twice" if name in given else "is no argument of it"
                raise TypeError(f"forward: {name} {twice}")
        return self._answer(dict.fromkeys(arguments) | BY_KEYWORD | given | named)

    kinds = inspect.Parameter
    parameters = [kinds("self", kinds.POSITIONAL_OR_KEYWORD)]
    parameters += [kinds(name, kinds.POSITIONAL_OR_KEYWORD, default=None) for name in arguments]
    parameters += [kinds(name, kinds.KEYWORD_ONLY, default=value) for name, value in BY_KEYWORD.items()]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return forward
