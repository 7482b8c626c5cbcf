"""What the models return; models_torch.bigbird.outputs has it."""

from models_torch.bigbird.outputs import (
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
