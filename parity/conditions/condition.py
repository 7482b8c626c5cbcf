"""One condition: a way in which users call a model, and what it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.family import Family, Head
from parity.conditions.bench import Bench
from parity.run.results import Row

Choice = Callable[[Family, Sequence[str]], list[str]]


def texts_head(family: Family, heads: Sequence[str]) -> list[str]:
    """Return the one head that stands for the encoder: it takes plain texts, best with a loss, and sees them whole."""
    order = sorted((family.heads[name] for name in heads), key=_rank)
    return [head.name for head in order[:1] if not head.decodes]


def _rank(head: Head) -> tuple[bool, bool, bool]:
    return head.decodes, head.inputs != "texts", bool(head.no_loss)


def every_head(family: Family, heads: Sequence[str]) -> list[str]:
    """Return all heads."""
    return list(heads)


def with_loss(family: Family, heads: Sequence[str]) -> list[str]:
    """Return the heads that have a loss."""
    return [name for name in heads if not family.heads[name].no_loss]


def trained_head(family: Family, heads: Sequence[str]) -> list[str]:
    """Return the head that stands for the encoder's gradients."""
    return with_loss(family, texts_head(family, heads))


def decoding(family: Family, heads: Sequence[str]) -> list[str]:
    """Return the heads that are run token by token."""
    return [name for name in heads if family.heads[name].decodes]


def _never(config: BigBirdConfig) -> str:
    return ""


@dataclass(frozen=True)
class UserCondition:
    """A condition of a run.

    name: one more in the report's list. purpose: what it is for, in a sentence. kills: the kinds of wrong code that it
    turns red, for the docs. heads: on which of the heads that were asked for it runs. run: compares, and yields rows.
    overrides: fields of the configuration under which it runs, from the model's own. why_not: why a model cannot have
    it; empty where it can.
    """

    name: str
    purpose: str
    kills: str
    heads: Choice
    run: Callable[[Bench], Iterator[Row]]
    overrides: Callable[[BigBirdConfig], dict[str, Any]] = field(default=lambda config: {})
    why_not: Callable[[BigBirdConfig], str] = _never
