"""The seven models with a task head, as linen modules.

The modules' arguments are FlaxBigBirdModule's; ``output_taps`` returns named intermediates.

Legend: B batch, L length, C labels or choices, V vocabulary.
"""

from __future__ import annotations

from typing import Any

from flax import linen as nn
from jax import Array
from jax import numpy as jnp

from models_flax.bigbird.heads import (
    BigBirdClassificationHead,
    BigBirdPreTrainingHeads,
    BigBirdQuestionAnsweringHead,
    classifier_dropout,
    mask_question,
    question_lengths_of,
    question_mask,
)
from models_flax.bigbird.inputs import (
    Arrays,
    check_choices,
    check_inputs,
    check_question_lengths,
    flatten_choices,
)
from models_flax.bigbird.layer import Taps
from models_flax.bigbird.model import FlaxBigBirdModule, Scores
from models_flax.bigbird.outputs import (
    BigBirdForPreTrainingOutput,
    BigBirdForQuestionAnsweringOutput,
)
from models_flax.bigbird.task import FlaxBigBirdTaskModule


class FlaxBigBirdForPreTrainingModule(FlaxBigBirdTaskModule):
    """Masked language modelling and next-sentence prediction."""

    output = BigBirdForPreTrainingOutput

    def setup(self) -> None:
        self.bert = FlaxBigBirdModule(self.config, True, self.dtype, self.gradient_checkpointing, self.skip_padding)
        self.cls = BigBirdPreTrainingHeads(self.config, next_sentence=True, dtype=self.dtype)

    def score(self, last_BLD: Array, pooled_BD: Any, deterministic: bool = True) -> tuple[Scores, Taps]:
        """Return prediction_logits [B, L, V] and seq_relationship_logits [B, 2], and taps."""
        logits_BLV, taps = self.cls.predictions(last_BLD, self.bert.embeddings.word_embeddings.embedding)
        scores = {"prediction_logits": logits_BLV, "seq_relationship_logits": self.cls.seq_relationship(pooled_BD)}
        return scores, taps | {"pooler_output": pooled_BD}


class FlaxBigBirdForMaskedLMModule(FlaxBigBirdTaskModule):
    """Masked language modelling."""

    takes = ("encoder_hidden_states", "encoder_attention_mask")

    def setup(self) -> None:
        self.bert = FlaxBigBirdModule(self.config, False, self.dtype, self.gradient_checkpointing, self.skip_padding)
        self.cls = BigBirdPreTrainingHeads(self.config, next_sentence=False, dtype=self.dtype)

    def score(self, last_BLD: Array, pooled_BD: Any, deterministic: bool = True) -> tuple[Scores, Taps]:
        """Return logits [B, L, V], and taps."""
        logits_BLV, taps = self.cls.predictions(last_BLD, self.bert.embeddings.word_embeddings.embedding)
        return {"logits": logits_BLV}, taps


class FlaxBigBirdForCausalLMModule(FlaxBigBirdTaskModule):
    """Causal language modelling: full attention to what precedes, whatever attention the configuration names."""

    takes = ("encoder_hidden_states", "encoder_attention_mask", "past_key_values")

    def setup(self) -> None:
        config = self.config.for_head("causal-lm")
        self.bert = FlaxBigBirdModule(config, False, self.dtype, self.gradient_checkpointing, self.skip_padding)
        self.cls = BigBirdPreTrainingHeads(config, next_sentence=False, dtype=self.dtype)

    def score(self, last_BLD: Array, pooled_BD: Any, deterministic: bool = True) -> tuple[Scores, Taps]:
        """Return logits [B, L, V], and taps."""
        logits_BLV, taps = self.cls.predictions(last_BLD, self.bert.embeddings.word_embeddings.embedding)
        return {"logits": logits_BLV}, taps


class FlaxBigBirdForSequenceClassificationModule(FlaxBigBirdTaskModule):
    """Classification of a text, with the head that config.classifier_style names."""

    def setup(self) -> None:
        self.bert = FlaxBigBirdModule(self.config, True, self.dtype, self.gradient_checkpointing, self.skip_padding)
        if self.config.classifier_style == "original":
            self.dropout = nn.Dropout(classifier_dropout(self.config))
            self.classifier: Any = nn.Dense(self.config.num_labels, dtype=self.dtype)
        else:
            self.classifier = BigBirdClassificationHead(self.config, self.dtype)

    def score(self, last_BLD: Array, pooled_BD: Any, deterministic: bool = True) -> tuple[Scores, Taps]:
        """Return logits [B, C], and taps."""
        if self.config.classifier_style == "original":
            logits_BC = self.classifier(self.dropout(pooled_BD, deterministic=deterministic))
            return {"logits": logits_BC}, {"pooler_output": pooled_BD}
        return {"logits": self.classifier(last_BLD, deterministic)}, {}


class FlaxBigBirdForMultipleChoiceModule(FlaxBigBirdTaskModule):
    """The best of several texts: every input has the shape [B, C, L].

    Hidden states, attentions and taps have B x C as their batch.
    """

    def setup(self) -> None:
        self.bert = FlaxBigBirdModule(self.config, True, self.dtype, self.gradient_checkpointing, self.skip_padding)
        self.dropout = nn.Dropout(classifier_dropout(self.config))
        self.classifier = nn.Dense(1, dtype=self.dtype)

    def split_inputs(self, arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arrays with every choice as a text of its own, and ``shape`` (batch, choices)."""
        shape = check_choices(arrays["input_ids"])
        return {name: x if name == "head_mask" else flatten_choices(x) for name, x in arrays.items()}, {"shape": shape}

    def score(
        self, last_BLD: Array, pooled_BD: Any, deterministic: bool = True, *, shape: tuple[int, int]
    ) -> tuple[Scores, Taps]:
        """Return logits [B, C], and taps; the batch of hidden states is B x C."""
        scores = self.classifier(self.dropout(pooled_BD, deterministic=deterministic))
        return {"logits": scores.reshape(shape)}, {"pooler_output": pooled_BD}


class FlaxBigBirdForTokenClassificationModule(FlaxBigBirdTaskModule):
    """Classification of every token."""

    def setup(self) -> None:
        self.bert = FlaxBigBirdModule(self.config, False, self.dtype, self.gradient_checkpointing, self.skip_padding)
        self.dropout = nn.Dropout(classifier_dropout(self.config))
        self.classifier = nn.Dense(self.config.num_labels, dtype=self.dtype)

    def score(self, last_BLD: Array, pooled_BD: Any, deterministic: bool = True) -> tuple[Scores, Taps]:
        """Return logits [B, L, C], and taps."""
        return {"logits": self.classifier(self.dropout(last_BLD, deterministic=deterministic))}, {}


class FlaxBigBirdForQuestionAnsweringModule(FlaxBigBirdTaskModule):
    """Start and end of an answer in a context that follows the question.

    question_lengths [B] or [B, 1]: tokens before the context; None counts up to the first sep_token_id. token_type_ids:
    None is 0 for the question and 1 for the context.
    """

    takes = ("question_lengths",)
    output = BigBirdForQuestionAnsweringOutput

    def setup(self) -> None:
        self.bert = FlaxBigBirdModule(self.config, False, self.dtype, self.gradient_checkpointing, self.skip_padding)
        self.qa_classifier = BigBirdQuestionAnsweringHead(self.config, self.dtype)

    def split_inputs(self, arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arrays with token types, and question_BL: True on the question's tokens."""
        ids, lengths = arrays["input_ids"], arrays.get("question_lengths")
        check_inputs(self.config, Arrays(ids))
        check_question_lengths(lengths, ids.shape[0])
        if lengths is None:
            lengths = question_lengths_of(ids, self.config.sep_token_id)
        question_BL = question_mask(lengths.reshape(-1), ids.shape[1])
        arrays = {name: x for name, x in arrays.items() if name != "question_lengths"}
        has_types = self.config.type_vocab_size > 1  # with a single one, all tokens are of it
        if arrays.get("token_type_ids") is None and has_types:
            arrays["token_type_ids"] = (~question_BL).astype(jnp.int32)
        return arrays, {"question_BL": question_BL}

    def score(
        self, last_BLD: Array, pooled_BD: Any, deterministic: bool = True, *, question_BL: Array
    ) -> tuple[Scores, Taps]:
        """Return start_logits and end_logits [B, L], and taps: the scores before the question is masked."""
        span_BL2 = self.qa_classifier(last_BLD, deterministic)
        masked_BL2 = mask_question(span_BL2, question_BL)
        return {"start_logits": masked_BL2[..., 0], "end_logits": masked_BL2[..., 1]}, {"span_logits": span_BL2}
