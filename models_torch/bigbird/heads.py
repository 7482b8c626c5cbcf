"""The task heads, from hidden states to scores.

Legend: B batch, L length, D hidden, I inner, V vocabulary, C labels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bigbird_port.families.bigbird.config import BigBirdConfig
from models_torch.bigbird.activations import ACTIVATIONS
from models_torch.bigbird.layer import BigBirdIntermediate, BigBirdOutput, Taps
from models_torch.scores import word_scores


class BigBirdPredictionTransform(nn.Module):
    """The layer between the encoder and the tied decoder of language modelling."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.act = ACTIVATIONS[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Return LayerNorm(act(dense(x))), [B, L, D]."""
        return self.LayerNorm(self.act(self.dense(x_BLD)))


class BigBirdLMPredictionHead(nn.Module):
    """Scores of every token of the vocabulary; the decoder is the transposed word embedding."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.transform = BigBirdPredictionTransform(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x_BLD: Tensor, embedding_VD: Tensor) -> tuple[Tensor, Taps]:
        """Return scores [B, L, V] and the tap transform [B, L, D]."""
        transform_BLD = self.transform(x_BLD)
        return word_scores(transform_BLD, embedding_VD, self.bias), {"transform": transform_BLD}


class BigBirdPreTrainingHeads(nn.Module):
    """Masked language modelling and, with ``next_sentence``, next-sentence prediction."""

    def __init__(self, config: BigBirdConfig, next_sentence: bool) -> None:
        super().__init__()
        self.predictions = BigBirdLMPredictionHead(config)
        if next_sentence:
            self.seq_relationship = nn.Linear(config.hidden_size, 2)


class BigBirdClassificationHead(nn.Module):
    """transformers' classification head, on the first token's hidden state (not the pooled one)."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)
        self.act = ACTIVATIONS[config.hidden_act]

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Return scores [B, C]."""
        hidden_BD = self.act(self.dense(self.dropout(x_BLD[:, 0])))
        return self.out_proj(self.dropout(hidden_BD))


class BigBirdQuestionAnsweringHead(nn.Module):
    """A feed-forward sublayer of its own, then a start and an end score for every token."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        own = config.replace(norm_type="postnorm")  # the head is transformers', whatever order the encoder has
        self.intermediate = BigBirdIntermediate(own)
        self.output = BigBirdOutput(own)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Return scores [B, L, 2]."""
        inner_BLI = self.intermediate(self.dropout(x_BLD))
        return self.qa_outputs(self.output(inner_BLI, x_BLD))


def classifier_dropout(config: BigBirdConfig) -> float:
    """Dropout of the classification heads: classifier_dropout, or hidden_dropout_prob where that is None."""
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout


def question_lengths_of(input_ids_BL: Tensor, sep_token_id: int) -> Tensor:
    """Length of the question with its [CLS] and [SEP], [B]: up to the first separator (1 where there is none)."""
    return (input_ids_BL == sep_token_id).int().argmax(dim=1) + 1


def question_mask(question_lengths_B: Tensor, length: int) -> Tensor:
    """True on the question's tokens, where no answer may lie, [B, L]."""
    return torch.arange(length, device=question_lengths_B.device) < question_lengths_B[:, None]


def mask_question(logits_BL2: Tensor, question_BL: Tensor) -> Tensor:
    """Take 1e6 from the scores of the question, but not of [CLS], which means "no answer".

    The result is float32, because float16 cannot hold 1e6.
    """
    masked_BL = question_BL.clone()
    masked_BL[:, 0] = False
    return logits_BL2 - masked_BL[:, :, None] * 1e6
