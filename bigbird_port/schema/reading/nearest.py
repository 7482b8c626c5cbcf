"""What a refusal says of the part of a checkpoint that comes closest, and of weights outside the chosen one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from bigbird_port.families.family import Family
from bigbird_port.schema.reading.naming import Naming
from bigbird_port.schema.reading.respelling import respelled
from bigbird_port.schema.reading.style import StyleName
from bigbird_port.schema.reading.subtree import Shapes, Subtree

_SHOWN = 5
_ENOUGH = 5  # weights that a part must hold to be named: fewer may be chance


def nearest(family: Family, shapes: Shapes, style: StyleName) -> str:
    """A sentence that names the part which holds most of the family's weights, and what it lacks; "" if none does."""
    prefix, found = _held(family, shapes, style)
    lacking = [name for name in dict.fromkeys(_needed(family, found)) if name not in found]
    if len(found) < _ENOUGH or not lacking:
        return ""
    more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
    place = prefix.rstrip("./") or "the top level"
    held, shown = f"{len(found)} weights of {family.title}", ", ".join(lacking[:_SHOWN])
    return f"\nClosest is {place}: it holds {held} and lacks {shown}{more}."


def likeliest(families: Iterable[Family], shapes: Shapes, style: StyleName) -> Family:
    """Return the family of which some part of a source holds most weights; of equal ones the first."""
    return max(families, key=lambda family: len(_held(family, shapes, style)[1]))


def _held(family: Family, shapes: Shapes, style: StyleName) -> tuple[str, set[str]]:
    """The prefix of the part that holds most weights, and these."""
    held: dict[str, set[str]] = {}
    for name in respelled(shapes, style):
        for prefix, weight in _meanings(family, name, style):
            held.setdefault(prefix, set()).add(weight)
            break  # the shortest prefix with which it means anything
    prefix = max(held, key=lambda each: len(held[each]), default="")
    return prefix, held.get(prefix, set())


def strayed(subtree: Subtree, fills: Mapping[str, str], head: str) -> str | None:
    """Why weights that would be initialised seem to lie outside the chosen part; None where none do."""
    lacking = {name for name, fill in fills.items() if fill == "initialise"}
    if not lacking:
        return None
    found = {}
    for name, own in respelled(subtree.strays, subtree.style).items():
        for _, weight in _meanings(subtree.family, name, subtree.style, head):
            if weight in lacking:
                found[weight] = own
    lines = "\n".join(f"  {weight}: perhaps {own}" for weight, own in sorted(found.items()))
    return f"weights of this head lie outside {subtree.label}, under names of their own:\n{lines}" if found else None


def _meanings(family: Family, name: str, style: StyleName, head: str | None = None) -> Iterator[tuple[str, str]]:
    """(prefix, weight) for every cut of a name behind which it means a weight."""
    for at in (0, *(found.end() for found in re.finditer(r"[./]", name))):
        rest = name[at:]
        scope = rest.partition("/")[0] if style == "original" else ""
        if meaning := _naming(family, style, scope, head).meaning(rest):
            yield name[:at], meaning.name


@lru_cache(maxsize=64)
def _naming(family: Family, style: StyleName, scope: str, head: str | None) -> Naming:
    return Naming(family, style, scope, head)


def _needed(family: Family, found: set[str]) -> list[str]:
    """The weights that every model with the layers of ``found`` has."""
    layers = [int(number[1]) for name in found if (number := re.search(r"\.(\d{1,4})\.", name))]
    needed = []
    default = family.config()
    for row in family.schema:
        if row.fill == "required" and all(name in family.told for name, _ in row.when) and row.exists(default):
            numbers = range(1 + max(layers, default=-1)) if "{i}" in row.name else (None,)
            needed += [row.name if i is None else row.name.replace("{i}", str(i)) for i in numbers]
    return needed
