"""A row of docs/compatibility.md: what people use of transformers, whether it works here, and what shows it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

WORKS = "works"


@dataclass(frozen=True)
class Row:
    """name: what people write. status: works, or "differs: why". check: of a Scene, true or a failed assertion.

    test: instead of a check, the test that runs it, as pytest names it.
    """

    name: str
    status: str = WORKS
    check: Callable[[Any], Any] | None = None
    test: str = ""


@dataclass
class Scene:
    """What the checks work with; ``fresh`` makes models of a class, ``folder`` is where one was saved."""

    fresh: Callable[..., Any]
    folder: Any
    tmp: Any
    tokenizer: Any
    slow: Any
    ids: Any
    config: Any
    pegasus: Any

    @property
    def model(self) -> Any:
        """A masked language model of torch."""
        return self.fresh("BigBirdForMaskedLM")

    @property
    def writer(self) -> Any:
        """A summariser of torch."""
        return self.fresh("BigBirdPegasusForConditionalGeneration")

    @property
    def flax(self) -> Any:
        """A masked language model of Flax."""
        return self.fresh("FlaxBigBirdForMaskedLM")

    @property
    def batch(self) -> Any:
        """A batch of torch's tensors."""
        return self.tokenizer(["the model", "a question of the model"], padding=True, return_tensors="pt")

    @property
    def output(self) -> Any:
        """What the masked language model returns."""
        return self.model(self.ids, output_hidden_states=True)


@contextmanager
def refused(words: str, kind: type[Exception] = ValueError):
    """That something is refused with these words."""
    with pytest.raises(kind, match=words):
        yield


def refuses(words: str, run: Callable[[Scene], Any], kind: type[Exception] = ValueError) -> Callable[[Scene], bool]:
    """A check that something is refused."""

    def check(scene: Scene) -> bool:
        with refused(words, kind):
            run(scene)
        return True

    return check
