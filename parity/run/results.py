"""What a parity run found, as data: everything that reports, baselines and plugins read.

Legend: B batch, L length, N heads, Q query blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from parity.checks.integrity import Check
from parity.measure.metrics import Difference
from parity.measure.tolerances import Tolerance

Error = Literal["accumulated", "local", "called", "gradient", "loss", "decoding", "training"]
ORIGINAL = "original"  # the witness that replays a golden case


@dataclass(frozen=True)
class Part:
    """The part of a tap that a row is about; None leaves an axis whole.

    attention_head: its index. query_block: index of a block of queries. positions: a class of queries ("global",
    "sparse", "padded"), or a range "a:b" of positions where a tap is measured in pieces. texts: a range "a:b" of the
    batch, whose choices are texts of their own, where it is measured in portions.
    """

    attention_head: int | None = None
    query_block: int | None = None
    positions: str | None = None
    texts: str | None = None

    def __str__(self) -> str:
        names = {
            "head": self.attention_head,
            "block": self.query_block,
            "positions": self.positions,
            "texts": self.texts,
        }
        return ", ".join(f"{name} {value}" for name, value in names.items() if value is not None)


@dataclass(frozen=True)
class Row:
    """One comparison: ``value`` against ``reference`` (names of witnesses) at one tap of one head.

    error: "accumulated" where each witness went on from its own values, "local" where ``value`` was given the
    reference's input of this layer or head, "called" where it is what the whole model returned in one call, on real
    tokens, "gradient" (tap: ``grad.<canonical name or tap>``), "loss", "decoding" (token by token against all at
    once), or "training" (tap: ``after.<weight or slot>`` behind an update, or what the update said). condition: name of
    the Condition. part: None for the whole tap.
    shared_by: other heads with the same inputs and encoder weights, for which this row stands as well.
    """

    head: str
    condition: str
    value: str
    reference: str
    error: Error
    tap: str
    part: Part | None
    shape: tuple[int, ...]
    tolerance: Tolerance
    difference: Difference
    shared_by: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.difference.passed

    @property
    def heads(self) -> tuple[str, ...]:
        """Every head that the row stands for."""
        return (self.head, *self.shared_by)

    @property
    def attention_head(self) -> int | None:
        """Index of the attention head that the row is about, if it is about one."""
        return self.part.attention_head if self.part else None

    @property
    def place(self) -> str:
        """The tap and the part of it, for people."""
        return f"{self.tap} {self.part}" if self.part else self.tap


@dataclass(frozen=True)
class Condition:
    """What one pass over the heads ran under.

    name: unique within a Result. batch, length: of the inputs. inputs: where they came from, for people.
    overrides: fields of the configuration that were changed. purpose: what a condition that users have is for; empty
    for a pass over all heads. heads: those that it is about; None: all that were asked for.
    """

    name: str
    batch: int
    length: int
    inputs: str
    dtype: str = "float32"
    torch_device: str = "cpu"
    flax_device: str = "cpu"
    matmul_precision: str = "highest"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    purpose: str = ""
    heads: tuple[str, ...] | None = None

    def is_about(self, head: str) -> bool:
        """Whether rows of a head belong to it."""
        return self.heads is None or head in self.heads


@dataclass(frozen=True)
class Finding:
    """Where a fault starts: the first place whose input was good and whose output is not.

    module: canonical name of the module (weights of the schema begin with it). evidence: how the input is known to
    be good. attention_heads, query_blocks, positions: the parts that are off, empty where the tap has no such axis
    or all of them are. sentence: the same for people.
    """

    head: str
    condition: str
    value: str
    reference: str
    tap: str
    module: str
    evidence: str
    sentence: str
    attention_heads: tuple[int, ...] = ()
    query_blocks: tuple[int, ...] = ()
    positions: tuple[str, ...] = ()


@dataclass
class Result:
    """Everything a run found.

    heads: those that were asked for. conditions: every pass. checks: files against the manifest, and what was loaded
    against the files. initialised: canonical names of weights that came from a seed, by head. not_compared: by head,
    what had no counterpart and rightly so. located: where faults start. environment: versions and machine. kept: the
    file with the tensors of the first failing layer.
    """

    heads: list[str] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    initialised: dict[str, list[str]] = field(default_factory=dict)
    not_compared: dict[str, list[str]] = field(default_factory=dict)
    located: list[Finding] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    witnesses: tuple[str, ...] = ()
    kept: Path | None = None

    def leave_out(self, head: str, *what: str) -> None:
        """Keep what is not compared for a head; with the reason in brackets, where there is one."""
        if what:
            self.not_compared[head] = sorted({*self.not_compared.get(head, ()), *what})

    @property
    def failures(self) -> Iterator[Row]:
        """The rows that did not pass, in the order of the pass."""
        return (row for row in self.rows if not row.passed)

    @property
    def missing(self) -> list[tuple[str, str]]:
        """(condition, head) pairs that were asked for and have no row of their own."""
        compared = {(row.condition, row.head) for row in self.rows}
        wanted = [(one.name, head) for one in self.conditions for head in self.heads if one.is_about(head)]
        return [pair for pair in wanted if pair not in compared]

    @property
    def passed(self) -> bool:
        """Whether every check and row passed, and every head has rows of its own under every condition."""
        return (
            bool(self.heads and self.conditions)
            and not self.missing
            and all(check.passed for check in self.checks)
            and all(row.passed for row in self.rows)
        )
