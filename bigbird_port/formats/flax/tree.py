"""Nested parameter trees from slash-separated names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"a": {"b": x}} for {"a/b": x}, in the order of ``leaves``.

    Raises ValueError where one name is both a leaf and a parent.
    """
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        node = tree
        for depth, parent in enumerate(parents, 1):
            path = "/".join(parents[:depth])
            if path in leaves:
                raise ValueError(f"{path!r} is a tensor and also the parent of {name!r}: rename one of them")
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree
