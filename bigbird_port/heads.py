"""The eight heads: their names on the command line and the classes that carry them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Head:
    """One task head.

    name: as typed after ``--head``. class_name: the torch class (Flax: the same with ``Flax`` before it).
    aliases: other names that ``--head`` accepts.
    """

    name: str
    class_name: str
    aliases: tuple[str, ...] = ()

    @property
    def flax_class_name(self) -> str:
        """The Flax class, as transformers names it."""
        return f"Flax{self.class_name}"


HEADS: dict[str, Head] = {
    head.name: head
    for head in (
        Head("base", "BigBirdModel"),
        Head("pretraining", "BigBirdForPreTraining"),
        Head("masked-lm", "BigBirdForMaskedLM", ("mlm",)),
        Head("causal-lm", "BigBirdForCausalLM", ("clm",)),
        Head("sequence-classification", "BigBirdForSequenceClassification", ("classification",)),
        Head("multiple-choice", "BigBirdForMultipleChoice"),
        Head("token-classification", "BigBirdForTokenClassification"),
        Head("qa", "BigBirdForQuestionAnswering", ("question-answering",)),
    )
}


def find_head(name: str) -> Head:
    """Return the head called ``name`` (its name, an alias, or its torch or Flax class).

    Raises ValueError naming the heads there are.
    """
    for head in HEADS.values():
        if name in (head.name, head.class_name, head.flax_class_name, *head.aliases):
            return head
    raise ValueError(f"unknown head {name!r}: expected one of {', '.join(HEADS)}")
