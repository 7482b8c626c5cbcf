"""How a program is called: which axes are open, and how many tokens a text has.

Legend: B batch, C choices, L length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bigbird_port.sparse.pattern import pattern_blocks
from parity.given.inputs import default_length

NAMES = ("input_ids", "attention_mask", "token_type_ids")
BATCH, CHOICES, LENGTH = "batch", "choices", "length"


@dataclass(frozen=True)
class Shape:
    """The inputs' axes [B, L] or [B, C, L]. length: None leaves it open, up to ``longest``. pattern_length: tokens of
    the attention pattern; None: full attention.
    """

    choices: bool
    length: int | None
    longest: int
    pattern_length: int | None

    @property
    def axes(self) -> tuple[str | int, ...]:
        """Each axis: its name where it is open, else its size."""
        return (BATCH, *((CHOICES,) if self.choices else ()), LENGTH if self.length is None else self.length)

    @property
    def told(self) -> str:
        """The same for people, with the reason."""
        if self.length is None:
            return f"any batch, any length up to {self.longest}"
        why = "is made for one length" if self.pattern_length else "was asked for at one length"
        what = "the attention pattern" if self.pattern_length else "full attention"
        return f"any batch, texts of {self.length} tokens, because {what} {why}: pad shorter ones, or choose --length"

    def example(self, batch: int) -> tuple[int, ...]:
        """The sizes of inputs to trace with."""
        sizes = {BATCH: batch, CHOICES: 2, LENGTH: min(self.longest, 48)}
        return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in self.axes)


def shape_for(config: Any, head: str, length: int | None) -> Shape:
    """Return how a program of a head is called; raises ValueError for a length that the model does not have."""
    longest = min(config.max_position_embeddings, config.max_encoder_length or config.max_position_embeddings)
    if length is not None and not 2 <= length <= longest:
        raise ValueError(f"--length {length}: the model takes 2 .. {longest} tokens")
    asked = length or min(default_length(config), longest)
    is_sparse = pattern_blocks(config, asked) is not None
    choices = config.family.heads[head].inputs == "choices"
    pattern_length = (config.max_encoder_length or asked) if is_sparse else None
    return Shape(choices, asked if is_sparse else length, asked if is_sparse else longest, pattern_length)
