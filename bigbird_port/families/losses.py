"""What a head is trained on: the terms of its loss, and what golden cases hold of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LossTerm:
    """One term of a head's loss: a function of the twins' losses, and its arguments among scores and labels.

    settings: fields of the configuration that it takes after them.
    """

    function: str
    arguments: tuple[str, ...]
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Original:
    """What golden cases hold of a head: <name>_log_probs and <name>_loss, which the original made of ``scores``.

    labels: the case's tensors that the loss takes. A case has these scores if it has the first of the labels.
    smoothed: names of the losses of a summary, with and without label smoothing, where they are in place of
    <name>_loss; the log-probabilities are then those of the labels.
    """

    name: str
    scores: str
    labels: tuple[str, ...]
    smoothed: tuple[str, ...] = ()

    @property
    def log_probs(self) -> str:
        """The tap with the log-probabilities."""
        return f"{self.name}_log_probs"

    @property
    def loss(self) -> str:
        """The tap with the loss."""
        return f"{self.name}_loss"
