"""What an optimizer of the original keeps beside a weight: its slots, by the weight's own names and layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bigbird_port.schema.layout import Dims, merged_shape
from bigbird_port.schema.table import Weight

_DROPPED = {"row": -1, "column": -2}  # the axis of the weight that a factor is the mean over


@dataclass(frozen=True)
class Rule:
    """One of the original's optimizers.

    name: its value of the flag. endings: slot -> what stands behind the variable's name in checkpoints: today's name,
    and the one of checkpoints with BERT's names. powers: variables that hold betas to the power of the next update.
    factored: of a weight with two or more axes it keeps means over rows and columns.
    """

    name: str
    endings: Mapping[str, tuple[str, ...]]
    powers: tuple[str, ...] = ()
    factored: bool = False


RULES: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "AdamWeightDecay",
            {"m": ("AdamWeightDecayOptimizer", "adam_m"), "v": ("AdamWeightDecayOptimizer_1", "adam_v")},
        ),
        Rule("Adafactor", {"row": ("Adafactor",), "column": ("Adafactor_1",), "v": ("Adafactor",)}, factored=True),
        Rule("Adam", {"m": ("Adam",), "v": ("Adam_1",)}, ("beta1_power", "beta2_power")),
    )
}


@dataclass(frozen=True)
class Slot:
    """One slot of a (numbered) weight. kind: m, v, row (means over the last axis) or column (over the last but one)."""

    weight: Weight
    kind: str

    @property
    def name(self) -> str:
        """The canonical name."""
        return f"{self.weight.name}/{self.kind}"

    @property
    def axes(self) -> str:
        """The canonical layout."""
        return slot_axes(self.weight.axes, self.kind)

    def shape(self, sizes: Dims) -> tuple[int, ...]:
        """The canonical shape."""
        return merged_shape(self.axes, sizes)

    def under(self, axes: str) -> Slot:
        """The slot with the same numbers where the weight is laid out as ``axes``: transposed, rows are columns."""
        if self.kind not in _DROPPED or slot_axes(axes, self.kind) == self.axes:
            return self
        return Slot(self.weight, "row" if self.kind == "column" else "column")


def slots_of(rule: Rule, weight: Weight) -> list[Slot]:
    """Return the slots of a weight that trains."""
    if not rule.factored:
        return [Slot(weight, "m"), Slot(weight, "v")]
    kinds = ("row", "column") if len(groups(weight.axes)) > 1 else ("v",)
    return [Slot(weight, kind) for kind in kinds]


def groups(axes: str) -> list[str]:
    """Split "hidden (heads head_dim)" into its axes, groups in one piece."""
    found: list[str] = []
    inside = False
    for word in axes.split():
        if inside:
            found[-1] += f" {word}"
        else:
            found.append(word)
        inside = (inside or word.startswith("(")) and not word.endswith(")")
    return found


def slot_axes(axes: str, kind: str) -> str:
    """Return the layout of a slot of a weight that is laid out as ``axes``."""
    parts = groups(axes)
    if kind in _DROPPED:
        del parts[_DROPPED[kind]]
    return " ".join(parts)


def each_ending() -> Iterator[tuple[Rule, str, str]]:
    """Yield (rule, kind, ending) for every spelling of a slot."""
    for rule in RULES.values():
        for kind, endings in rule.endings.items():
            yield from ((rule, kind, ending) for ending in endings)
