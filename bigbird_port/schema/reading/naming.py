"""How each kind of source spells the schema's weights, and which weight a name in a source means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bigbird_port.families.configuration import Configuration
from bigbird_port.families.family import Family
from bigbird_port.schema.reading.style import StyleName
from bigbird_port.schema.table import Weight


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

    def __init__(
        self,
        family: Family,
        style: StyleName,
        scope: str = "",
        head: str | None = None,
        config: Configuration | None = None,
    ) -> None:
        self.style, self.scope, self._kind = family.styles[style], scope, style
        self._rows: dict[str, Weight] = {}
        self._ties: dict[str, Weight] = {}
        self.unsure: set[str] = set()  # canonical names of rows whose names other rows have as well
        for row in sorted(family.schema, key=lambda row: config is not None and not row.exists(config)):
            if self.style.per_head and head not in (None, *row.owners("torch")) and family.base not in row.heads:
                continue  # a class of any head can be built with all of the base model, such as its pooler
            for name in self.style.names(row):
                # Styles with one set of names for all heads have no name twice, but for rows of which a configuration
                # has one; a test holds the table to it.
                if self._rows.setdefault(name, row) is not row:
                    self.unsure |= {row.name, self._rows[name].name}
            if style == "torch":
                tied = row.tied[:1] if row.tied and head in row.tied[1] else ()
                self._ties |= dict.fromkeys((*tied, *row.repeats, *row.copies), row)

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
        if self._kind == "original":
            yield f"{{scope}}/{name.removeprefix(self.scope + '/')}" if name.startswith(self.scope + "/") else name
        elif self._kind == "saved-model":
            parts = name.split("/")
            ends = ["/".join(parts[at:]) for at in range(len(parts))]
            yield from ends
            yield from ("/".join((*end.split("/")[:-2], "{other}", parts[-1])) for end in ends)
        else:
            yield from dict.fromkeys((name, name.removeprefix(self.style.prefix)))

    def spelled(self, row: Weight) -> str:
        """How this source would spell a (numbered) row, for messages."""
        return " or ".join(name.replace("{scope}", self.scope) for name in self.style.names(row)) or row.name


def find_scope(family: Family, names: Iterable[str]) -> str:
    """Return the scope under which the original's variables stand; raises ValueError if it is not one."""
    (anchor,) = family.anchor_row.original
    tail = anchor.removeprefix("{scope}")
    scopes = sorted({name[: -len(tail)] for name in names if name.endswith(tail)})
    if len(scopes) != 1:
        found = "none" if not scopes else ", ".join(scopes)
        raise ValueError(f"not a whole {family.title} checkpoint: expected one variable <scope>{tail}, found {found}")
    return scopes[0]


def naming_of(
    family: Family,
    style: StyleName,
    names: Iterable[str],
    head: str | None = None,
    config: Configuration | None = None,
) -> Naming:
    """Return how a source names its weights; raises ValueError where it is no source of this family at all.

    config: of the source, where it is known: of several rows with one name, that which such a model has is meant.
    """
    listed = list(names)
    naming = Naming(family, style, find_scope(family, listed) if style == "original" else "", head, config)
    if not any((found := naming.meaning(name)) and found.name == family.anchor for name in listed):
        expected = naming.spelled(family.anchor_row)
        raise ValueError(f"not a whole {family.title} checkpoint: expected {expected}, which is not there")
    return naming
