"""The five models: the linen modules with their parameters. torch's modules hold their own."""

from __future__ import annotations

from models_flax.pegasus.coupled import make_module
from models_flax.pegasus.generation import GenerationMixin
from models_flax.pegasus.pretrained import FlaxBigBirdPegasusPreTrainedModel
from models_flax.pegasus.tasks import (
    FlaxBigBirdPegasusForCausalLMModule,
    FlaxBigBirdPegasusForConditionalGenerationModule,
    FlaxBigBirdPegasusForQuestionAnsweringModule,
    FlaxBigBirdPegasusForSequenceClassificationModule,
)


class FlaxBigBirdPegasusModel(FlaxBigBirdPegasusPreTrainedModel):
    """FlaxBigBirdPegasusModule with its parameters."""

    head = "base"
    module_class = staticmethod(make_module)


class FlaxBigBirdPegasusForConditionalGeneration(GenerationMixin, FlaxBigBirdPegasusPreTrainedModel):
    """FlaxBigBirdPegasusForConditionalGenerationModule with its parameters."""

    head = "conditional-generation"
    module_class = FlaxBigBirdPegasusForConditionalGenerationModule


class FlaxBigBirdPegasusForSequenceClassification(FlaxBigBirdPegasusPreTrainedModel):
    """FlaxBigBirdPegasusForSequenceClassificationModule with its parameters."""

    head = "sequence-classification"
    module_class = FlaxBigBirdPegasusForSequenceClassificationModule


class FlaxBigBirdPegasusForQuestionAnswering(FlaxBigBirdPegasusPreTrainedModel):
    """FlaxBigBirdPegasusForQuestionAnsweringModule with its parameters."""

    head = "qa"
    module_class = FlaxBigBirdPegasusForQuestionAnsweringModule


class FlaxBigBirdPegasusForCausalLM(FlaxBigBirdPegasusPreTrainedModel):
    """FlaxBigBirdPegasusForCausalLMModule with its parameters."""

    head = "causal-lm"
    module_class = FlaxBigBirdPegasusForCausalLMModule
