"""The task heads, from hidden states to scores.

Legend: B batch, L length, D hidden, I inner, V vocabulary, C labels.
"""

from __future__ import annotations

from flax import linen as nn
from jax import Array
from jax import numpy as jnp
from jax.typing import DTypeLike

from bigbird_port.families.bigbird.config import BigBirdConfig
from models_flax.bigbird.activations import ACTIVATIONS
from models_flax.bigbird.layer import BigBirdIntermediate, BigBirdOutput, Taps
from models_flax.scores import word_scores


class BigBirdPredictionTransform(nn.Module):
    """The layer between the encoder and the tied decoder of language modelling."""

    config: BigBirdConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.dense = nn.Dense(self.config.hidden_size, dtype=self.dtype)
        self.act = ACTIVATIONS[self.config.hidden_act]
        self.LayerNorm = nn.LayerNorm(epsilon=self.config.layer_norm_eps, use_fast_variance=False, dtype=self.dtype)

    def __call__(self, x_BLD: Array) -> Array:
        """Return LayerNorm(act(dense(x))), [B, L, D]."""
        return self.LayerNorm(self.act(self.dense(x_BLD)))


class BigBirdLMPredictionHead(nn.Module):
    """Scores of every token of the vocabulary; the decoder is the transposed word embedding."""

    config: BigBirdConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.transform = BigBirdPredictionTransform(self.config, self.dtype)
        self.bias = self.param("bias", nn.initializers.zeros_init(), (self.config.vocab_size,))

    def __call__(self, x_BLD: Array, embedding_VD: Array) -> tuple[Array, Taps]:
        """Return scores [B, L, V] and the tap transform [B, L, D]."""
        transform_BLD = self.transform(x_BLD)
        logits_BLV = word_scores(transform_BLD, embedding_VD.astype(self.dtype), self.bias.astype(self.dtype))
        return logits_BLV, {"transform": transform_BLD}


class BigBirdPreTrainingHeads(nn.Module):
    """Masked language modelling and, with ``next_sentence``, next-sentence prediction."""

    config: BigBirdConfig
    next_sentence: bool
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.predictions = BigBirdLMPredictionHead(self.config, self.dtype)
        if self.next_sentence:
            self.seq_relationship = nn.Dense(2, dtype=self.dtype)


class BigBirdClassificationHead(nn.Module):
    """transformers' classification head, on the first token's hidden state (not the pooled one)."""

    config: BigBirdConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.dense = nn.Dense(self.config.hidden_size, dtype=self.dtype)
        self.dropout = nn.Dropout(classifier_dropout(self.config))
        self.out_proj = nn.Dense(self.config.num_labels, dtype=self.dtype)
        self.act = ACTIVATIONS[self.config.hidden_act]

    def __call__(self, x_BLD: Array, deterministic: bool) -> Array:
        """Return scores [B, C]."""
        hidden_BD = self.act(self.dense(self.dropout(x_BLD[:, 0], deterministic=deterministic)))
        return self.out_proj(self.dropout(hidden_BD, deterministic=deterministic))


class BigBirdQuestionAnsweringHead(nn.Module):
    """A feed-forward sublayer of its own, then a start and an end score for every token."""

    config: BigBirdConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.dropout = nn.Dropout(self.config.hidden_dropout_prob)
        own = self.config.replace(norm_type="postnorm")  # the head is transformers', whatever order the encoder has
        self.intermediate = BigBirdIntermediate(own, self.dtype)
        self.output = BigBirdOutput(own, self.dtype)
        self.qa_outputs = nn.Dense(2, dtype=self.dtype)

    def __call__(self, x_BLD: Array, deterministic: bool) -> Array:
        """Return scores [B, L, 2]."""
        inner_BLI = self.intermediate(self.dropout(x_BLD, deterministic=deterministic))
        return self.qa_outputs(self.output(inner_BLI, x_BLD, deterministic))


def classifier_dropout(config: BigBirdConfig) -> float:
    """Dropout of the classification heads: classifier_dropout, or hidden_dropout_prob where that is None."""
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout


def question_lengths_of(input_ids_BL: Array, sep_token_id: int) -> Array:
    """Length of the question with its [CLS] and [SEP], [B]: up to the first separator (1 where there is none)."""
    return (input_ids_BL == sep_token_id).argmax(axis=1) + 1


def question_mask(question_lengths_B: Array, length: int) -> Array:
    """True on the question's tokens, where no answer may lie, [B, L]."""
    return jnp.arange(length) < question_lengths_B[:, None]


def mask_question(logits_BL2: Array, question_BL: Array) -> Array:
    """Take 1e6 from the scores of the question, but not of [CLS], which means "no answer".

    The result is float32, because float16 cannot hold 1e6.
    """
    # not .at[:, 0]: where a mesh splits positions, XLA's update masks the first of every other device
    masked_BL = question_BL & (jnp.arange(question_BL.shape[1]) > 0)
    return logits_BL2 - masked_BL[:, :, None] * jnp.float32(1e6)
