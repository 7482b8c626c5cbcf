"""BigBird and BigBird-Pegasus in Flax."""

from models_flax.bigbird.holders import (
    FlaxBigBirdForCausalLM,
    FlaxBigBirdForMaskedLM,
    FlaxBigBirdForMultipleChoice,
    FlaxBigBirdForPreTraining,
    FlaxBigBirdForQuestionAnswering,
    FlaxBigBirdForSequenceClassification,
    FlaxBigBirdForTokenClassification,
    FlaxBigBirdModel,
)
from models_flax.pegasus.holders import (
    FlaxBigBirdPegasusForCausalLM,
    FlaxBigBirdPegasusForConditionalGeneration,
    FlaxBigBirdPegasusForQuestionAnswering,
    FlaxBigBirdPegasusForSequenceClassification,
    FlaxBigBirdPegasusModel,
)

__all__ = [
    "FlaxBigBirdForCausalLM",
    "FlaxBigBirdForMaskedLM",
    "FlaxBigBirdForMultipleChoice",
    "FlaxBigBirdForPreTraining",
    "FlaxBigBirdForQuestionAnswering",
    "FlaxBigBirdForSequenceClassification",
    "FlaxBigBirdForTokenClassification",
    "FlaxBigBirdModel",
    "FlaxBigBirdPegasusForCausalLM",
    "FlaxBigBirdPegasusForConditionalGeneration",
    "FlaxBigBirdPegasusForQuestionAnswering",
    "FlaxBigBirdPegasusForSequenceClassification",
    "FlaxBigBirdPegasusModel",
]
