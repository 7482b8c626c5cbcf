"""The losses; models_torch.bigbird.losses and models_torch.pegasus.losses have them."""

from models_torch.bigbird.losses import (
    causal_lm_loss,
    classification_loss,
    masked_lm_loss,
    multiple_choice_loss,
    next_sentence_loss,
    question_answering_loss,
    token_classification_loss,
)
from models_torch.pegasus.losses import summary_loss

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
