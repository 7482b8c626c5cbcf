"""The base model and the seven models with a task head: linen modules, and classes that hold their parameters.

Legend: B batch, L length, D hidden, N choices of a multiple choice.
"""

from __future__ import annotations

from typing import Any

from flax import linen as nn
from jax import Array
from jax import numpy as jnp

from bigbird_port.config import BigBirdConfig
from models_flax.attention import Taps
from models_flax.embeddings import BigBirdEmbeddings
from models_flax.encoder import BigBirdEncoder
from models_flax.heads import (
    BigBirdClassificationHead,
    BigBirdPreTrainingHeads,
    BigBirdQuestionAnsweringHead,
    classifier_dropout,
    mask_question,
    question_lengths_of,
    question_mask,
)
from models_flax.outputs import (
    BigBirdForPreTrainingOutput,
    BigBirdForQuestionAnsweringOutput,
    BigBirdHeadOutput,
    BigBirdModelOutput,
)
from models_flax.pretrained import FlaxBigBirdPreTrainedModel


class FlaxBigBirdModule(nn.Module):
    """Embeddings, encoder and pooler."""

    config: BigBirdConfig
    add_pooling_layer: bool = True

    def setup(self) -> None:
        self.embeddings = BigBirdEmbeddings(self.config)
        self.encoder = BigBirdEncoder(self.config)
        self.pooler = nn.Dense(self.config.hidden_size) if self.add_pooling_layer else None

    def __call__(
        self,
        input_ids: Array,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        output_hidden_states: bool = False,
        output_taps: bool = False,
        *,
        deterministic: bool = True,
    ) -> BigBirdModelOutput:
        """Encode ids [B, L].

        attention_mask [B, L]: 1 for tokens, 0 for padding; None takes what differs from pad_token_id, as the original.
        token_type_ids, position_ids [B, L]: None is 0 and 0 .. L-1. Raises ValueError for a wrong shape or length.
        """
        check_inputs(self.config, input_ids, attention_mask, token_type_ids, position_ids)
        mask_BL = (input_ids != self.config.pad_token_id) if attention_mask is None else attention_mask.astype(bool)
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(input_ids)
        if position_ids is None:
            position_ids = jnp.arange(input_ids.shape[1])[None]
        x_BLD, taps = self.embeddings(input_ids, token_type_ids, position_ids, deterministic)
        hidden_states, layer_taps = self.encoder(x_BLD, mask_BL, output_taps, deterministic)
        pooled_BD = None if self.pooler is None else jnp.tanh(self.pooler(hidden_states[-1][:, 0]))
        return BigBirdModelOutput(
            last_hidden_state=hidden_states[-1],
            pooler_output=pooled_BD,
            hidden_states=hidden_states if output_hidden_states else None,
            taps=taps | layer_taps if output_taps else None,
        )


class FlaxBigBirdForPreTrainingModule(nn.Module):
    """Masked language modelling and next-sentence prediction."""

    config: BigBirdConfig

    def setup(self) -> None:
        self.bert = FlaxBigBirdModule(self.config)
        self.cls = BigBirdPreTrainingHeads(self.config, next_sentence=True)

    def __call__(self, input_ids: Array, *args: Any, **kwargs: Any) -> BigBirdForPreTrainingOutput:
        """Score every token and the sentence pair; the arguments are FlaxBigBirdModule's."""
        base = self.bert(input_ids, *args, **kwargs)
        embedding_VD = self.bert.embeddings.word_embeddings.embedding
        logits_BLV, taps = self.cls.predictions(base.last_hidden_state, embedding_VD)
        return BigBirdForPreTrainingOutput(
            prediction_logits=logits_BLV,
            seq_relationship_logits=self.cls.seq_relationship(base.pooler_output),
            hidden_states=base.hidden_states,
            taps=join_taps(base.taps, taps | {"pooler_output": base.pooler_output}),
        )


class FlaxBigBirdForMaskedLMModule(nn.Module):
    """Masked language modelling."""

    config: BigBirdConfig

    def setup(self) -> None:
        self.bert = FlaxBigBirdModule(self.config, add_pooling_layer=False)
        self.cls = BigBirdPreTrainingHeads(self.config, next_sentence=False)

    def __call__(self, input_ids: Array, *args: Any, **kwargs: Any) -> BigBirdHeadOutput:
        """Score every token; the arguments are FlaxBigBirdModule's."""
        base = self.bert(input_ids, *args, **kwargs)
        embedding_VD = self.bert.embeddings.word_embeddings.embedding
        logits_BLV, taps = self.cls.predictions(base.last_hidden_state, embedding_VD)
        return BigBirdHeadOutput(logits_BLV, base.hidden_states, join_taps(base.taps, taps))


class FlaxBigBirdForCausalLMModule(nn.Module):
    """Causal language modelling: full attention to what precedes, whatever attention the configuration names."""

    config: BigBirdConfig

    def setup(self) -> None:
        config = self.config.for_head("causal-lm")
        self.bert = FlaxBigBirdModule(config, add_pooling_layer=False)
        self.cls = BigBirdPreTrainingHeads(config, next_sentence=False)

    def __call__(self, input_ids: Array, *args: Any, **kwargs: Any) -> BigBirdHeadOutput:
        """Score every next token; the arguments are FlaxBigBirdModule's."""
        base = self.bert(input_ids, *args, **kwargs)
        embedding_VD = self.bert.embeddings.word_embeddings.embedding
        logits_BLV, taps = self.cls.predictions(base.last_hidden_state, embedding_VD)
        return BigBirdHeadOutput(logits_BLV, base.hidden_states, join_taps(base.taps, taps))


class FlaxBigBirdForSequenceClassificationModule(nn.Module):
    """Classification of a text, with the head that config.classifier_style names."""

    config: BigBirdConfig

    def setup(self) -> None:
        self.bert = FlaxBigBirdModule(self.config)
        if self.config.classifier_style == "original":
            self.dropout = nn.Dropout(classifier_dropout(self.config))
            self.classifier: Any = nn.Dense(self.config.num_labels)
        else:
            self.classifier = BigBirdClassificationHead(self.config)

    def __call__(self, input_ids: Array, *args: Any, deterministic: bool = True, **kwargs: Any) -> BigBirdHeadOutput:
        """Score every label; the arguments are FlaxBigBirdModule's."""
        base = self.bert(input_ids, *args, deterministic=deterministic, **kwargs)
        taps = base.taps
        if self.config.classifier_style == "original":
            taps = join_taps(taps, {"pooler_output": base.pooler_output})
            logits_BC = self.classifier(self.dropout(base.pooler_output, deterministic=deterministic))
        else:
            logits_BC = self.classifier(base.last_hidden_state, deterministic)
        return BigBirdHeadOutput(logits_BC, base.hidden_states, taps)


class FlaxBigBirdForMultipleChoiceModule(nn.Module):
    """The best of several texts: every input has the shape [B, N, L]."""

    config: BigBirdConfig

    def setup(self) -> None:
        self.bert = FlaxBigBirdModule(self.config)
        self.dropout = nn.Dropout(classifier_dropout(self.config))
        self.classifier = nn.Dense(1)

    def __call__(
        self,
        input_ids: Array,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        deterministic: bool = True,
        **kwargs: Any,
    ) -> BigBirdHeadOutput:
        """Score every choice, [B, N]; hidden states and taps have B x N as their batch."""
        check_choices(input_ids)
        base = self.bert(
            flatten_choices(input_ids),
            flatten_choices(attention_mask),
            flatten_choices(token_type_ids),
            flatten_choices(position_ids),
            deterministic=deterministic,
            **kwargs,
        )
        taps = join_taps(base.taps, {"pooler_output": base.pooler_output})
        scores = self.classifier(self.dropout(base.pooler_output, deterministic=deterministic))
        return BigBirdHeadOutput(scores.reshape(input_ids.shape[:2]), base.hidden_states, taps)


class FlaxBigBirdForTokenClassificationModule(nn.Module):
    """Classification of every token."""

    config: BigBirdConfig

    def setup(self) -> None:
        self.bert = FlaxBigBirdModule(self.config, add_pooling_layer=False)
        self.dropout = nn.Dropout(classifier_dropout(self.config))
        self.classifier = nn.Dense(self.config.num_labels)

    def __call__(self, input_ids: Array, *args: Any, deterministic: bool = True, **kwargs: Any) -> BigBirdHeadOutput:
        """Score every label for every token; the arguments are FlaxBigBirdModule's."""
        base = self.bert(input_ids, *args, deterministic=deterministic, **kwargs)
        logits_BLC = self.classifier(self.dropout(base.last_hidden_state, deterministic=deterministic))
        return BigBirdHeadOutput(logits_BLC, base.hidden_states, base.taps)


class FlaxBigBirdForQuestionAnsweringModule(nn.Module):
    """Start and end of an answer in a context that follows the question."""

    config: BigBirdConfig

    def setup(self) -> None:
        self.bert = FlaxBigBirdModule(self.config, add_pooling_layer=False)
        self.qa_classifier = BigBirdQuestionAnsweringHead(self.config)

    def __call__(
        self,
        input_ids: Array,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        question_lengths: Array | None = None,
        deterministic: bool = True,
        **kwargs: Any,
    ) -> BigBirdForQuestionAnsweringOutput:
        """Score every token as start and as end of the answer.

        question_lengths [B] or [B, 1]: tokens before the context; None counts up to the first sep_token_id.
        token_type_ids: None is 0 for the question and 1 for the context.
        """
        if question_lengths is None:
            question_lengths = question_lengths_of(input_ids, self.config.sep_token_id)
        question_BL = question_mask(question_lengths.reshape(-1), input_ids.shape[1])
        if token_type_ids is None:
            token_type_ids = (~question_BL).astype(input_ids.dtype)
        base = self.bert(input_ids, attention_mask, token_type_ids, position_ids, deterministic=deterministic, **kwargs)
        span_BL2 = self.qa_classifier(base.last_hidden_state, deterministic)
        masked_BL2 = mask_question(span_BL2, question_BL)
        return BigBirdForQuestionAnsweringOutput(
            masked_BL2[..., 0], masked_BL2[..., 1], base.hidden_states, join_taps(base.taps, {"span_logits": span_BL2})
        )


def join_taps(base: Taps | None, head: dict[str, Any]) -> Taps | None:
    """Return base and head taps together, or None where none were asked for."""
    return None if base is None else base | head


def flatten_choices(x_BNL: Any) -> Any:
    """Return [B, N, L] as [B x N, L]; None stays None."""
    return None if x_BNL is None else x_BNL.reshape(-1, x_BNL.shape[-1])


def check_choices(input_ids: Array) -> None:
    """Raise ValueError unless the ids of a multiple choice have three axes."""
    if input_ids.ndim != 3:
        raise ValueError(f"input_ids has shape {list(input_ids.shape)}, expected [batch, choices, length]")


def check_inputs(config: BigBirdConfig, input_ids: Array, *others: Array | None) -> None:
    """Raise ValueError unless ids have the shape [B, L], L fits the position embeddings, and the others fit the ids."""
    shape = tuple(input_ids.shape)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"input_ids has shape {list(shape)}, expected [batch, length] with neither 0")
    if shape[1] > config.max_position_embeddings:
        raise ValueError(
            f"the inputs are {shape[1]} tokens long, but there are {config.max_position_embeddings} position "
            "embeddings (max_position_embeddings): shorten them"
        )
    for name, other in zip(("attention_mask", "token_type_ids", "position_ids"), others, strict=True):
        if other is not None and tuple(other.shape) not in (shape, (1, shape[1])):
            raise ValueError(f"{name} has shape {list(other.shape)}, expected that of input_ids, {list(shape)}")


class FlaxBigBirdModel(FlaxBigBirdPreTrainedModel):
    """FlaxBigBirdModule with its parameters."""

    module_class = FlaxBigBirdModule


class FlaxBigBirdForPreTraining(FlaxBigBirdPreTrainedModel):
    """FlaxBigBirdForPreTrainingModule with its parameters."""

    module_class = FlaxBigBirdForPreTrainingModule


class FlaxBigBirdForMaskedLM(FlaxBigBirdPreTrainedModel):
    """FlaxBigBirdForMaskedLMModule with its parameters."""

    module_class = FlaxBigBirdForMaskedLMModule


class FlaxBigBirdForCausalLM(FlaxBigBirdPreTrainedModel):
    """FlaxBigBirdForCausalLMModule with its parameters."""

    module_class = FlaxBigBirdForCausalLMModule


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
