"""The attention pattern as a picture: query blocks downwards, key blocks to the right.

Legend: N heads, Q query blocks with a list of their own, S slots, n blocks of the sequence.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.sparse.pattern import Pattern, layer_pattern
from parity.reports.svg import Element, add, picture

KINDS = ("global", "window", "random", "repeated")
_WINDOW, _LAST, _RANDOM = slice(1, 4), 4, slice(5, None)  # slots, as bigbird_port.sparse.pattern.key_lists orders them


@dataclass(frozen=True, eq=False)
class Grid:
    """Which key blocks a query block attends to, and why: bool [n, n] by kind; repeated: those that stand twice."""

    kinds: Mapping[str, np.ndarray]

    def count(self, kind: str) -> int:
        """Return how many blocks are of a kind."""
        return int(self.kinds[kind].sum())


def grids(values: Mapping[str, Any], length: int) -> Iterator[list[Grid]]:
    """Yield the grid of every attention head, layer by layer, for texts of ``length`` tokens.

    values: fields of the configuration; nothing comes where attention is full. Raises ValueError as BigBirdConfig and
    layer_pattern do.
    """
    config = BigBirdConfig.from_dict(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no plan for a length is for the model to say
        for layer in range(config.num_hidden_layers):
            pattern = layer_pattern(config, layer, length)
            if pattern is None:
                return
            n = -(-length // config.block_size)
            yield [grid(pattern, head, n) for head in range(config.num_attention_heads)]


def grid(pattern: Pattern, head: int, n: int) -> Grid:
    """Return the grid of one head over n blocks."""
    keys_QS, live_QS = pattern.key_blocks[head], pattern.live[head]
    count = np.zeros((n, n), np.int32)
    kinds = {kind: np.zeros((n, n), bool) for kind in KINDS}
    rows = np.broadcast_to(np.arange(1, len(keys_QS) + 1)[:, None], keys_QS.shape)
    np.add.at(count, (rows[live_QS], keys_QS[live_QS]), 1)
    # later kinds give way to earlier ones: a random block on a global one is a global block that stands twice
    for kind, slots in (
        ("random", [_RANDOM]),
        ("window", [_WINDOW]),
        ("global", [slice(0, 1), slice(_LAST, _LAST + 1)]),
    ):
        for slot in slots:
            live = live_QS[:, slot]
            at = rows[:, slot][live], keys_QS[:, slot][live]
            for other in kinds.values():
                other[at] = False
            kinds[kind][at] = True
    full = [q for q in range(n) if not 1 <= q <= len(keys_QS)]
    kinds["global"][full] = True
    kinds["repeated"] = count > 1
    return Grid(kinds)


def draw_fixed(grid: Grid, name: str) -> Element:
    """Return what all heads and layers share, hidden, for ``draw`` to refer to by its name."""
    root = Element("svg", width="0", height="0", class_="hidden")
    root.set("aria-hidden", "true")
    group = add(add(root, "defs"), "g", id=name)
    n = len(grid.kinds["global"])
    add(group, "rect", width=n, height=n, class_="paper")
    for kind in ("global", "window"):
        add(group, "path", d=" ".join(_runs(grid.kinds[kind])), class_=f"k-{kind}")
    return root


def draw(grid: Grid, fixed: str, name: str, title: str) -> Element:
    """Return the picture of one head; fixed: the name given to ``draw_fixed``."""
    n = len(grid.kinds["global"])
    root = picture(name, n, n, title, f"{n} by {n} blocks; {describe(grid)}")
    add(root, "use", href=f"#{fixed}")
    squares = "".join(f"M{k}.15 {q}.15h.7v.7h-.7z" for q, k in np.argwhere(grid.kinds["random"]))
    crosses = "".join(f"M{k}.2 {q}.2l.6 .6m0-.6l-.6 .6" for q, k in np.argwhere(grid.kinds["repeated"]))
    for kind, path in (("random", squares), ("repeated", crosses)):
        if path:
            add(root, "path", d=path, class_=f"k-{kind}")
    return root


def describe(grid: Grid) -> str:
    """Say how many blocks are of which kind."""
    return ", ".join(f"{grid.count(kind)} {kind}" for kind in KINDS)


def _runs(mask: np.ndarray) -> Iterator[str]:
    """Yield a rectangle for each run of blocks in a row."""
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    for (q, start), (_, end) in zip(np.argwhere(edges == 1), np.argwhere(edges == -1), strict=True):
        yield f"M{start} {q}h{end - start}v1h-{end - start}z"
