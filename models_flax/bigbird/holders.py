"""The eight models: the linen modules with their parameters. torch's modules hold their own."""

from __future__ import annotations

from typing import Any

from jax import Array
from jax.typing import ArrayLike

from models_flax.bigbird.generation import GenerationMixin
from models_flax.bigbird.model import FlaxBigBirdModule
from models_flax.bigbird.tasks import (
    FlaxBigBirdForCausalLMModule,
    FlaxBigBirdForMaskedLMModule,
    FlaxBigBirdForMultipleChoiceModule,
    FlaxBigBirdForPreTrainingModule,
    FlaxBigBirdForQuestionAnsweringModule,
    FlaxBigBirdForSequenceClassificationModule,
    FlaxBigBirdForTokenClassificationModule,
)
from models_flax.pretrained.model import FlaxBigBirdPreTrainedModel, Params


class FlaxBigBirdModel(FlaxBigBirdPreTrainedModel):
    """FlaxBigBirdModule with its parameters."""

    module_class = FlaxBigBirdModule
    decoder_inputs = ("encoder_hidden_states", "encoder_attention_mask", "past_key_values")


class FlaxBigBirdForPreTraining(FlaxBigBirdPreTrainedModel):
    """FlaxBigBirdForPreTrainingModule with its parameters."""

    module_class = FlaxBigBirdForPreTrainingModule


class FlaxBigBirdForMaskedLM(FlaxBigBirdPreTrainedModel):
    """FlaxBigBirdForMaskedLMModule with its parameters."""

    module_class = FlaxBigBirdForMaskedLMModule
    decoder_inputs = ("encoder_hidden_states", "encoder_attention_mask")


class FlaxBigBirdForCausalLM(GenerationMixin, FlaxBigBirdPreTrainedModel):
    """FlaxBigBirdForCausalLMModule with its parameters."""

    module_class = FlaxBigBirdForCausalLMModule
    decoder_inputs = ("encoder_hidden_states", "encoder_attention_mask", "past_key_values")


class FlaxBigBirdForSequenceClassification(FlaxBigBirdPreTrainedModel):
    """FlaxBigBirdForSequenceClassificationModule with its parameters."""

    module_class = FlaxBigBirdForSequenceClassificationModule


class FlaxBigBirdForMultipleChoice(FlaxBigBirdPreTrainedModel):
    """FlaxBigBirdForMultipleChoiceModule with its parameters."""

    module_class = FlaxBigBirdForMultipleChoiceModule
    smallest_input = (1, 1, 1)


class FlaxBigBirdForTokenClassification(FlaxBigBirdPreTrainedModel):
    """FlaxBigBirdForTokenClassificationModule with its parameters."""

    module_class = FlaxBigBirdForTokenClassificationModule


class FlaxBigBirdForQuestionAnswering(FlaxBigBirdPreTrainedModel):
    """FlaxBigBirdForQuestionAnsweringModule with its parameters."""

    module_class = FlaxBigBirdForQuestionAnsweringModule

    def __call__(  # type: ignore[override]  # the page's order: question_lengths stands where the others have an encoder
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
        position_ids: ArrayLike | None = None,
        head_mask: ArrayLike | None = None,
        question_lengths: ArrayLike | None = None,
        params: Params | None = None,
        dropout_rng: Array | None = None,
        indices_rng: Array | None = None,
        train: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        output_taps: bool = False,
    ) -> Any:
        """Run the module on ``params`` (None: the model's own); the options are FlaxBigBirdPreTrainedModel's."""
        arrays = (input_ids, attention_mask, token_type_ids, position_ids, head_mask, question_lengths)
        flags = (train, output_attentions, output_hidden_states, return_dict, output_taps)
        return self._apply(arrays, {}, params, dropout_rng, indices_rng, *flags)
