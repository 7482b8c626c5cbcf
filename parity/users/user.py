"""A framework as its users meet it: whole calls with whatever a call takes, gradients, caches, text, and files.

Legend: B batch, L length, V vocabulary.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from parity.given.inputs import Inputs
from parity.witnesses.witness import Gradients, Taps, Witness

USERS = {"torch": "parity.users.of_torch", "flax": "parity.users.of_flax"}


class User(Protocol):
    """One framework's model of one head, and what a user does with it. name: of the framework. witness: of its stages.

    takes_embeddings: whether a call takes word embeddings in place of ids. ways: contexts in which it runs otherwise.
    """

    name: str
    witness: Any
    takes_embeddings: bool
    ways: Mapping[str, Callable[[Any], AbstractContextManager[Any]]]

    def call(self, inputs: Inputs, **asked: Any) -> Taps:
        """Return what one call returns, by field; entry i of a tuple as <field>.<i>. asked: output_attentions, .."""
        ...

    def loss(self, inputs: Inputs, labels: Inputs, scores: Taps) -> float:
        """Return the loss as a user gets it: the call's own, or where a call takes no labels that of ``scores``."""
        ...

    def gradients(self, inputs: Inputs, labels: Inputs) -> Gradients:
        """Return loss and gradients of all weights through one call; no taps."""
        ...

    def continued(self, pieces: Sequence[Inputs]) -> np.ndarray:
        """Return the scores [B, L, V] of pieces of texts, each given the cache of those before."""
        ...

    def generate(self, inputs: Inputs, tokens: int, **how: Any) -> np.ndarray:
        """Return prompts and their continuations by so many tokens, [B, L + tokens]. how: do_sample, top_k, .."""
        ...

    def weights(self) -> Taps:
        """Return the model's weights by canonical name, in canonical layout."""
        ...

    def size(self) -> int:
        """Return how many numbers the model says that its parameters hold."""
        ...

    def made(self, seed: int) -> User:
        """Return the user of a new model of the same configuration, its weights drawn from a seed."""
        ...

    def extended(self, length: int, method: str) -> User:
        """Return the user of a model with more position embeddings."""
        ...

    def reloaded(self, folder: Path) -> Witness:
        """Save the model into a folder, load it again, and return the witness of what was loaded."""
        ...


def users_of(witnesses: dict[str, Any]) -> list[User]:
    """Return the users of those witnesses that have some."""
    return [importlib.import_module(USERS[name]).user_of(witnesses[name]) for name in USERS if name in witnesses]


def flat(output: Any, to_array: Any, returned: Sequence[str], asked: Mapping[str, Any]) -> Taps:
    """Return the arrays of a model's output by field, and those of a tuple by <field>.<i>; caches are left out.

    Taps are named as they are, and the entries of a plain tuple by ``returned``, the scores of the head in order.
    Raises ValueError where something else than what was ``asked`` for came: a tuple, or an output with names.
    """
    if isinstance(output, tuple) != (asked.get("return_dict") is False):
        raise ValueError(f"the call returned {type(output).__name__} under return_dict={asked.get('return_dict')}")
    found: Taps = {}
    for name, x in zip(returned, output, strict=True) if isinstance(output, tuple) else output.items():
        if hasattr(x, "dtype"):
            found[name] = to_array(x)
        elif isinstance(x, tuple) and all(hasattr(one, "dtype") for one in x):
            found |= {f"{name}.{i}": to_array(one) for i, one in enumerate(x)}
    taps = getattr(output, "taps", None) or {}
    return found | {name: to_array(x) for name, x in taps.items()}
