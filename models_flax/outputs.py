"""What the models return; models_flax.bigbird.outputs has it."""

from models_flax.bigbird.outputs import (
    BigBirdForPreTrainingOutput,
    BigBirdForQuestionAnsweringOutput,
    BigBirdHeadOutput,
    BigBirdModelOutput,
)

__all__ = [
    "BigBirdForPreTrainingOutput",
    "BigBirdForQuestionAnsweringOutput",
    "BigBirdHeadOutput",
    "BigBirdModelOutput",
]
