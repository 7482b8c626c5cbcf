"""How each kind of source spells the schema's weights, and which weight a name in a source means."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from bigbird_port.schema.table import POOLED, SCHEMA, Weight

StyleName = Literal["original", "saved-model", "torch", "flax", "neutral"]


@dataclass(frozen=True)
class Style:
    """One way of naming weights.

    names: a row's names, any one of which may occur. axes: its layout. layer: finds a layer's number, the group
    "number", which is absent for layer 0 of a SavedModel; marked: what a template of ``names`` has in its place.
    prefix: of the base model's weights inside a model with a head; sources may leave it out.
    per_head: whether rows of different heads share a name, so that the source's head must be known.
    """

    names: Callable[[Weight], tuple[str, ...]]
    axes: Callable[[Weight], str]
    layer: re.Pattern[str]
    marked: str
    prefix: str = ""
    per_head: bool = False


STYLES: Mapping[StyleName, Style] = {
    "original": Style(
        lambda row: row.original, lambda row: row.axes, re.compile(r"/layer_(?P<number>\d+)/"), "/layer_{i}/"
    ),
    "saved-model": Style(
        lambda row: row.keras,
        lambda row: row.axes,
        re.compile(r"(?<![^/])transformer_scaffold(_(?P<number>\d+))?(?=/)"),
        "transformer_scaffold{_i}",
    ),
    "torch": Style(
        lambda row: (row.torch,),
        lambda row: row.torch_axes,
        re.compile(r"\.layer\.(?P<number>\d+)\."),
        ".layer.{i}.",
        prefix="bert.",
        per_head=True,
    ),
    "flax": Style(
        lambda row: (row.flax,),
        lambda row: row.flax_axes,
        re.compile(r"/layer/(?P<number>\d+)/"),
        "/layer/{i}/",
        prefix="bert/",
        per_head=True,
    ),
    "neutral": Style(
        lambda row: (row.name,), lambda row: row.axes, re.compile(r"\.layer\.(?P<number>\d+)\."), ".layer.{i}."
    ),
}


@dataclass(frozen=True)
class Meaning:
    """What a name means: a row of the schema, in which layer; tied: it repeats the values of that row."""

    row: Weight
    layer: int | None
    tied: bool = False

    @property
    def name(self) -> str:
        """The canonical name."""
        return self.row.name if self.layer is None else self.row.name.replace("{i}", str(self.layer))


class Naming:
    """The names of one source: its style, scope (of the original's variables) and head (where names depend on it)."""

    def __init__(self, style: StyleName, scope: str = "", head: str | None = None) -> None:
        self.style, self.scope = STYLES[style], scope
        self._rows: dict[str, Weight] = {}
        self._ties: dict[str, Weight] = {}
        for row in SCHEMA:
            if self.style.per_head and head not in (None, *row.owners("torch")) and row.heads != POOLED:
                continue  # a class of any head can be built with a pooler
            for name in self.style.names(row):
                # Styles with one set of names for all heads must have no name twice; a test holds the table to it.
                self._rows.setdefault(name, row)
            if style == "torch" and row.tied and head in row.tied[1]:
                self._ties[row.tied[0]] = row

    def meaning(self, name: str) -> Meaning | None:
        """Return what ``name`` means, or None if it is no name of a weight."""
        found = self.style.layer.search(name)
        layer = int(found["number"] or 0) if found else None
        if found:
            name = name[: found.start()] + self.style.marked + name[found.end() :]
        for candidate in self._candidates(name):
            if candidate in self._ties:
                return Meaning(self._ties[candidate], None, tied=True)
            row = self._rows.get(candidate)
            if row and ("{i}" in row.name) == (layer is not None):
                return Meaning(row, layer)
        return None

    def _candidates(self, name: str) -> Iterable[str]:
        """The templates that a name may be spelled from."""
        if self.style is STYLES["original"]:
            yield f"{{scope}}/{name.removeprefix(self.scope + '/')}" if name.startswith(self.scope + "/") else name
        elif self.style is STYLES["saved-model"]:
            parts = name.split("/")
            ends = ["/".join(parts[at:]) for at in range(len(parts))]
            yield from ends
            yield from ("/".join((*end.split("/")[:-2], "{other}", parts[-1])) for end in ends)
        else:
            yield name.removeprefix(self.style.prefix)

    def spelled(self, row: Weight) -> str:
        """How this source would spell a (numbered) row, for messages."""
        return " or ".join(name.replace("{scope}", self.scope) for name in self.style.names(row)) or row.name


def find_scope(names: Iterable[str]) -> str:
    """Return the scope (usually "bert") under which the original's variables stand; raises ValueError if not one."""
    tail = "/embeddings/word_embeddings"
    scopes = sorted({name[: -len(tail)] for name in names if name.endswith(tail)})
    if len(scopes) != 1:
        found = "none" if not scopes else ", ".join(scopes)
        raise ValueError(f"not a BigBird checkpoint: expected one variable <scope>{tail}, found {found}")
    return scopes[0]


def naming_of(style: StyleName, names: Iterable[str], head: str | None = None) -> Naming:
    """Return how a source names its weights; raises ValueError where it is no BigBird source at all."""
    listed = list(names)
    naming = Naming(style, find_scope(listed) if style == "original" else "", head)
    if not any((found := naming.meaning(name)) and found.name.startswith("embeddings.word") for name in listed):
        embeddings = next(row for row in SCHEMA if row.name.startswith("embeddings.word"))
        raise ValueError(f"not a BigBird checkpoint: expected {naming.spelled(embeddings)}, which is not there")
    return naming
