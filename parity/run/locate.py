"""Where a fault starts: a module whose input was good and whose output is not, and which parts of the output.

Legend: B batch, L length, N heads, Q blocks of queries, W block size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.family import Family
from bigbird_port.sparse.pattern import pattern_blocks
from parity.run.compare import Scene
from parity.run.results import Error, Finding, Row
from parity.witnesses.witness import Taps

STAGE = ""  # what goes into a stage: the ids, the last layer's output, or the hidden states fed in


@dataclass(frozen=True, eq=False)
class Comparison:
    """The two sides of a stage: who, how it was fed, all its rows, and the taps themselves.

    input_good: whether what went in was within tolerance, and evidence: how that is known.
    """

    scene: Scene
    names: tuple[str, str]
    error: Error
    rows: list[Row]
    sides: tuple[Taps, Taps]
    input_good: bool
    evidence: str


def locate(stage: Comparison, config: BigBirdConfig) -> Iterator[Finding]:
    """Yield a Finding for every tap of the stage that is off while everything that it is computed from is good."""
    passed = {row.tap: row.passed for row in stage.rows if row.attention_head is None}
    for tap, good in passed.items():
        if not good and all(_is_good(source, passed, stage) for source in _sources(tap, stage.scene, passed)):
            yield _finding(stage, tap, config)


def _is_good(source: str, passed: Mapping[str, bool], stage: Comparison) -> bool:
    return stage.input_good if source == STAGE else passed[source]


def _sources(tap: str, scene: Scene, present: Mapping[str, bool]) -> Iterator[str]:
    """The nearest taps before ``tap`` that were compared, or what goes into the stage."""
    place = scene.family.place(tap, scene.head)
    if place is None or not place.sources:
        yield STAGE
        return
    for source in place.sources:
        if source in present:
            yield source
        else:
            yield from _sources(source, scene, present)


def module_of(tap: str, head: str, family: Family) -> str:
    """Return the canonical name of the module that computes a tap; the whole model's, which is empty, of a loss."""
    place = family.place(tap, head)
    return place.module if place else ""


def _finding(stage: Comparison, tap: str, config: BigBirdConfig) -> Finding:
    row = next(row for row in stage.rows if row.tap == tap and not row.passed)
    parts = _Parts(stage, tap, config) if tap in stage.sides[0] and tap in stage.sides[1] else None
    heads, blocks, positions = parts.off() if parts else ((), (), ())
    module = module_of(tap, row.head, config.family)
    words = [*(parts.words(heads, blocks, positions) if parts else ())]
    if row.part and row.part.texts:
        words.append(f"texts {row.part.texts}")
    what = row.difference.problem or f"max abs {row.difference.max_abs:.1e}, {row.difference.excess:.3g} times allowed"
    sentence = (
        f"starts here: {tap} ({module}) of {row.value} against {row.reference}, {row.head}, {row.condition}: "
        f"{stage.evidence}, its output is not: {'; '.join([what, *words])}"
    )
    return Finding(
        *(row.head, row.condition, row.value, row.reference, tap, module, stage.evidence, sentence),
        attention_heads=heads,
        query_blocks=blocks,
        positions=positions,
    )


class _Parts:
    """One tap taken apart: attention heads, blocks of queries, classes of positions."""

    def __init__(self, stage: Comparison, tap: str, config: BigBirdConfig) -> None:
        self.stage, self.tap, self.config = stage, tap, config
        self.value, self.reference = (self._rows_first(side[tap]) for side in stage.sides)
        whole = next(row.difference for row in stage.rows if row.tap == tap and row.attention_head is None)
        self.scale = None if whole.problem else whole.scale
        most = next(stage.scene.allowed(stage.names, stage.error, tap), None)
        self.allowed = None if most is None else self._rows_first(most)
        self.comparable = self.value.shape == self.reference.shape
        self.has_positions = self.comparable and stage.scene.has_positions(tap, stage.sides[0][tap])
        self.has_heads = self.has_positions and stage.scene.place(tap).tap.has("heads")

    def off(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]]:
        """Indices of the heads and of the blocks, and the classes, in which something is off."""
        heads = [n for n in range(self._size(2)) if self._is_off(np.s_[:, :, n])] if self.has_heads else []
        blocks: list[int] = []
        classes: list[str] = []
        if self.has_positions:
            W = self.config.block_size
            blocks = [q for q in range(-(-self._size(1) // W)) if self._is_off(np.s_[:, q * W : (q + 1) * W])]
            classes = [name for name, mask_BL in self._classes().items() if self._is_off(np.s_[:], mask_BL)]
        return tuple(heads), tuple(blocks), tuple(classes)

    def words(self, heads: tuple[int, ...], blocks: tuple[int, ...], positions: tuple[str, ...]) -> Iterator[str]:
        """The same for people; each head with its blocks where these are few."""
        if heads:
            W, count = self.config.block_size, -(-self._size(1) // self.config.block_size)
            for n in heads[:4]:
                own = [q for q in blocks if self._is_off(np.s_[:, q * W : (q + 1) * W, n])]
                yield f"head {n}: {_listed(own, count, 'block')}"
            if len(heads) > 4:
                yield f"{len(heads)} heads of {self._size(2)}"
        elif blocks:
            yield _listed(list(blocks), -(-self._size(1) // self.config.block_size), "block")
        if positions:
            yield f"positions: {', '.join(positions)}"

    def _rows_first(self, x: np.ndarray) -> np.ndarray:
        return self.stage.scene.batch_first(self.tap, x)

    def _size(self, axis: int) -> int:
        return int(self.value.shape[axis])

    def _is_off(self, index: Any, mask_BL: np.ndarray | None = None) -> bool:
        """Whether a part is not within tolerance; the tap's own scale counts, not the part's."""
        scene, names = self.stage.scene, self.stage.names
        mask = scene.where(names, self.stage.error, self.tap, self.stage.sides[0][self.tap])
        if mask_BL is not None:
            mask = mask_BL if mask is None else mask & mask_BL
        if mask is not None:
            rows = index[:2] if isinstance(index, tuple) else index
            mask = mask[rows]
            if not mask.any():
                return False
        sides = self.value[index], self.reference[index]
        most = None if self.allowed is None else self.allowed[index]
        return not scene.measure(names, self.stage.error, self.tap, sides, mask, self.scale, most).passed

    def _classes(self) -> dict[str, np.ndarray]:
        """bool [B, L] by class of query: padded; global and sparse, or full attention."""
        real_BL = self.stage.scene.real_BL
        L, W = real_BL.shape[1], self.config.block_size
        n = None if self.config.is_decoder else pattern_blocks(self.config, L)
        found = {"padded": ~real_BL}
        if n is None:
            return {"full": real_BL} | found
        block_L = np.arange(L) // W
        is_global_L = (block_L == 0) | (block_L == n - 1)
        return {"global": real_BL & is_global_L, "sparse": real_BL & ~is_global_L} | found


def _listed(found: list[int], count: int, noun: str) -> str:
    if len(found) == count:
        return f"all {count} {noun}s"
    if len(found) > 8:
        return f"{len(found)} of {count} {noun}s, the first {found[0]}"
    return f"{noun}{'s' if len(found) > 1 else ''} {', '.join(map(str, found))}"
