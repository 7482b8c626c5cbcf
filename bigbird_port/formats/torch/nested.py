"""The tensors in the nested dicts and lists of a torch checkpoint, under names joined by slashes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bigbird_port.formats.limits import MAX_DEPTH, MAX_ITEMS, MAX_NODES
from bigbird_port.formats.runs import check_name
from bigbird_port.formats.store import Stored
from bigbird_port.formats.torch.inert import Inert

if TYPE_CHECKING:
    import torch


def flatten(root: Any) -> tuple[dict[str, torch.Tensor], dict[str, Stored]]:
    """Return the tensors of a tree by name, and what else it holds: single values, lists of them, placeholders.

    Raises ValueError where it is too deep or too large, or a tensor's name is none, not printable or there twice.
    """
    walk = _Walk()
    walk.visit(root, "", 1)
    return walk.tensors, walk.others


class _Walk:
    """One walk through a tree. A pickle can hold one list in many places, so that each visit counts."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.others: dict[str, Stored] = {}
        self.nodes = self.items = 0

    def visit(self, value: Any, name: str, depth: int) -> None:
        """Take in what is called ``name``."""
        import torch

        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise ValueError(f"it holds more than {MAX_NODES} values")
        if depth > MAX_DEPTH:
            raise ValueError(f"{name[:80]} is nested more than {MAX_DEPTH} deep")
        if isinstance(value, torch.Tensor):
            if check_name(name) in self.tensors:
                raise ValueError(f"{name} is there twice")
            self.tensors[name] = value
        elif isinstance(value, dict):
            self.visit_items(value.items(), name, depth)
        elif isinstance(value, (list, tuple)) and self.holds_more(value):
            self.visit_items(enumerate(value), name, depth)
        elif name:
            what = "an object of a foreign class" if isinstance(value, Inert) else f"a {type(value).__name__}"
            self.others.setdefault(_printable(name), Stored(None, (), f"no array but {what}"))

    def visit_items(self, items: Any, name: str, depth: int) -> None:
        """Take in the entries of a dict or list."""
        for key, value in items:
            named = isinstance(key, (str, int))
            inner = str(key) if named else f"({type(key).__name__})"
            # No weight stands under a key that is no name.
            self.visit(value if named or _is_plain(value) else None, f"{name}/{inner}" if name else inner, depth + 1)

    def holds_more(self, values: Any) -> bool:
        """Whether a list holds anything but single values: such a list is one entry."""
        self.items += len(values)
        if self.items > MAX_ITEMS:
            raise ValueError(f"its lists hold more than {MAX_ITEMS} values")
        return not all(_is_plain(value) for value in values)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, bytes, Inert))


def _printable(name: str) -> str:
    return ascii(name)[1:-1][:200] if not name.isprintable() or len(name) > 200 else name
