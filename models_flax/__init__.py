"""BigBird and BigBird-Pegasus in Flax."""

from bigbird_port.installed import need

need("models_flax", "jax", "flax")

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
