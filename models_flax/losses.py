"""The losses; models_flax.bigbird.losses and models_flax.pegasus.losses have them."""

from models_flax.bigbird.losses import (
    causal_lm_loss,
    classification_loss,
    masked_lm_loss,
    multiple_choice_loss,
    next_sentence_loss,
    question_answering_loss,
    token_classification_loss,
)
from models_flax.pegasus.losses import summary_loss

__all__ = [
    "causal_lm_loss",
    "classification_loss",
    "masked_lm_loss",
    "multiple_choice_loss",
    "next_sentence_loss",
    "question_answering_loss",
    "summary_loss",
    "token_classification_loss",
]
