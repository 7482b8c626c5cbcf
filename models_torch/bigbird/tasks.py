"""The seven models with a task head.

Legend: B batch, L length, K keys (cached and new tokens), D hidden, N heads, C labels or choices, V vocabulary.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bigbird_port.families.bigbird.config import BigBirdConfig
from models_torch.bigbird.generation import GenerationMixin
from models_torch.bigbird.heads import (
    BigBirdClassificationHead,
    BigBirdPreTrainingHeads,
    BigBirdQuestionAnsweringHead,
    classifier_dropout,
    mask_question,
    question_lengths_of,
    question_mask,
)
from models_torch.bigbird.inputs import (
    check_choices,
    check_class_labels,
    check_labels,
    check_positions,
    check_question_lengths,
    flatten_choices,
)
from models_torch.bigbird.layer import Taps
from models_torch.bigbird.losses import (
    causal_lm_loss,
    classification_loss,
    masked_lm_loss,
    multiple_choice_loss,
    next_sentence_loss,
    question_answering_loss,
    token_classification_loss,
)
from models_torch.bigbird.model import BigBirdModel, Scores
from models_torch.bigbird.outputs import (
    BigBirdForPreTrainingOutput,
    BigBirdForQuestionAnsweringOutput,
)
from models_torch.bigbird.task import ASKED, ENCODER, TEXT, BigBirdTaskModel


class BigBirdForPreTraining(BigBirdTaskModel):
    """Masked language modelling and next-sentence prediction.

    labels [B, L]: ids, -100 where there is nothing to predict. next_sentence_label [B]: 0 next, 1 random. The loss is
    their sum, and asks for labels.
    """

    arguments = (*TEXT, "labels", "next_sentence_label", *ASKED)
    output = BigBirdForPreTrainingOutput

    def __init__(self, config: BigBirdConfig, *, seed: int | None = 0) -> None:
        super().__init__(config)
        self.bert = BigBirdModel(self.config, seed=None)
        self.cls = BigBirdPreTrainingHeads(self.config, next_sentence=True)
        self._initialise(seed)

    def score(self, last_BLD: Tensor, pooled_BD: Tensor) -> tuple[Scores, Taps]:
        """Return prediction_logits [B, L, V] and seq_relationship_logits [B, 2], and taps."""
        logits_BLV, taps = self.cls.predictions(last_BLD, self.bert.embeddings.word_embeddings.weight)
        scores = {"prediction_logits": logits_BLV, "seq_relationship_logits": self.cls.seq_relationship(pooled_BD)}
        return scores, taps | {"pooler_output": pooled_BD}

    def loss(self, scores: Scores, labels: Tensor | None, next_sentence_label: Tensor | None) -> Tensor | None:
        """Return the sum of both losses, or the first alone; None without labels."""
        logits_BLV, next_B2 = scores.values()
        check_labels("labels", labels, logits_BLV.shape[:2], self.config.vocab_size)
        check_labels("next_sentence_label", next_sentence_label, (next_B2.shape[0],), 2)
        if labels is None or next_sentence_label is None:
            return None if labels is None else masked_lm_loss(logits_BLV, labels)
        return masked_lm_loss(logits_BLV, labels) + next_sentence_loss(next_B2, next_sentence_label)


class BigBirdForMaskedLM(BigBirdTaskModel):
    """Masked language modelling. labels [B, L]: ids, -100 where there is nothing to predict."""

    arguments = (*TEXT, *ENCODER, "labels", *ASKED)

    def __init__(self, config: BigBirdConfig, *, seed: int | None = 0) -> None:
        super().__init__(config)
        self.bert = BigBirdModel(self.config, seed=None)
        self.cls = BigBirdPreTrainingHeads(self.config, next_sentence=False)
        self._initialise(seed)

    def score(self, last_BLD: Tensor, pooled_BD: Tensor | None) -> tuple[Scores, Taps]:
        """Return logits [B, L, V], and taps."""
        logits_BLV, taps = self.cls.predictions(last_BLD, self.bert.embeddings.word_embeddings.weight)
        return {"logits": logits_BLV}, taps

    def loss(self, scores: Scores, labels: Tensor | None) -> Tensor | None:
        """Return the mean cross entropy; None without labels."""
        check_labels("labels", labels, scores["logits"].shape[:2], self.config.vocab_size)
        return None if labels is None else masked_lm_loss(scores["logits"], labels)


class BigBirdForCausalLM(GenerationMixin, BigBirdTaskModel):
    """Causal language modelling: full attention to what precedes, whatever attention the configuration names.

    labels [B, L]: the ids themselves, or -100.
    """

    arguments = (*TEXT, *ENCODER, "past_key_values", "labels", "use_cache", *ASKED)

    def __init__(self, config: BigBirdConfig, *, seed: int | None = 0) -> None:
        super().__init__(config)
        self.bert = BigBirdModel(self.config, seed=None)
        self.cls = BigBirdPreTrainingHeads(self.config, next_sentence=False)
        self._initialise(seed)

    def score(self, last_BLD: Tensor, pooled_BD: Tensor | None) -> tuple[Scores, Taps]:
        """Return logits [B, L, V], and taps."""
        logits_BLV, taps = self.cls.predictions(last_BLD, self.bert.embeddings.word_embeddings.weight)
        return {"logits": logits_BLV}, taps

    def loss(self, scores: Scores, labels: Tensor | None) -> Tensor | None:
        """Return the mean cross entropy; None without labels."""
        check_labels("labels", labels, scores["logits"].shape[:2], self.config.vocab_size)
        return None if labels is None else causal_lm_loss(scores["logits"], labels)


class BigBirdForSequenceClassification(BigBirdTaskModel):
    """Classification of a text, with the head that config.classifier_style names.

    labels: classes [B], or numbers [B, C] for regression and multi-label classification (config.problem_type).
    """

    arguments = (*TEXT, "labels", *ASKED)

    def __init__(self, config: BigBirdConfig, *, seed: int | None = 0) -> None:
        super().__init__(config)
        self.bert = BigBirdModel(self.config, seed=None)
        if config.classifier_style == "original":
            self.dropout = nn.Dropout(classifier_dropout(config))
            self.classifier: nn.Module = nn.Linear(config.hidden_size, config.num_labels)
        else:
            self.classifier = BigBirdClassificationHead(config)
        self._initialise(seed)

    def score(self, last_BLD: Tensor, pooled_BD: Tensor) -> tuple[Scores, Taps]:
        """Return logits [B, C], and taps."""
        if self.config.classifier_style == "original":
            return {"logits": self.classifier(self.dropout(pooled_BD))}, {"pooler_output": pooled_BD}
        return {"logits": self.classifier(last_BLD)}, {}

    def loss(self, scores: Scores, labels: Tensor | None) -> Tensor | None:
        """Return what config.problem_type names; None without labels."""
        labelled = (self.config.num_labels, self.config.problem_type)
        check_class_labels(labels, scores["logits"].shape[0], *labelled)
        return None if labels is None else classification_loss(scores["logits"], labels, *labelled)


class BigBirdForMultipleChoice(BigBirdTaskModel):
    """The best of several texts: every input has the shape [B, C, L].

    Hidden states, attentions and taps have B x C as their batch. labels [B]: the right choice.
    """

    arguments = (*TEXT, "labels", *ASKED)

    def __init__(self, config: BigBirdConfig, *, seed: int | None = 0) -> None:
        super().__init__(config)
        self.bert = BigBirdModel(self.config, seed=None)
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, 1)
        self._initialise(seed)

    def split_inputs(self, arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arrays with every choice as a text of its own, and ``shape`` (batch, choices)."""
        shape = check_choices(arrays.get("input_ids"), arrays.get("inputs_embeds"))
        return {name: x if name == "head_mask" else flatten_choices(x) for name, x in arrays.items()}, {"shape": shape}

    def score(self, last_BLD: Tensor, pooled_BD: Tensor, shape: tuple[int, int]) -> tuple[Scores, Taps]:
        """Return logits [B, C], and taps; the batch of hidden states is B x C."""
        return {"logits": self.classifier(self.dropout(pooled_BD)).view(shape)}, {"pooler_output": pooled_BD}

    def loss(self, scores: Scores, labels: Tensor | None) -> Tensor | None:
        """Return the mean cross entropy over the choices; None without labels."""
        batch, choices = scores["logits"].shape
        check_labels("labels", labels, (batch,), choices)
        return None if labels is None else multiple_choice_loss(scores["logits"], labels)


class BigBirdForTokenClassification(BigBirdTaskModel):
    """Classification of every token. labels [B, L]: -100 is ignored."""

    arguments = (*TEXT, "labels", *ASKED)

    def __init__(self, config: BigBirdConfig, *, seed: int | None = 0) -> None:
        super().__init__(config)
        self.bert = BigBirdModel(self.config, seed=None)
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self._initialise(seed)

    def score(self, last_BLD: Tensor, pooled_BD: Tensor | None) -> tuple[Scores, Taps]:
        """Return logits [B, L, C], and taps."""
        return {"logits": self.classifier(self.dropout(last_BLD))}, {}

    def loss(self, scores: Scores, labels: Tensor | None) -> Tensor | None:
        """Return the mean cross entropy; None without labels."""
        check_labels("labels", labels, scores["logits"].shape[:2], self.config.num_labels)
        return None if labels is None else token_classification_loss(scores["logits"], labels)


class BigBirdForQuestionAnswering(BigBirdTaskModel):
    """Start and end of an answer in a context that follows the question.

    question_lengths [B] or [B, 1]: tokens before the context, which cannot be the answer; None counts up to the first
    sep_token_id (with inputs_embeds: no question). token_type_ids: None is 0 for the question, 1 for the context.
    start_positions, end_positions [B]: those at or beyond L are ignored, negative ones count as 0.
    """

    arguments = (*TEXT[:2], "question_lengths", *TEXT[2:], "start_positions", "end_positions", *ASKED)
    output = BigBirdForQuestionAnsweringOutput

    def __init__(self, config: BigBirdConfig, add_pooling_layer: bool = False, *, seed: int | None = 0) -> None:
        super().__init__(config)
        self.bert = BigBirdModel(self.config, add_pooling_layer, seed=None)
        self.qa_classifier = BigBirdQuestionAnsweringHead(config)
        self._initialise(seed)

    def split_inputs(self, arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arrays with token types, and question_BL: True on the question's tokens (None: unknown)."""
        ids, lengths = arrays.get("input_ids"), arrays.get("question_lengths")
        tokens = ids if ids is not None else arrays.get("inputs_embeds")
        question_BL = None
        if lengths is None and ids is not None:
            lengths = question_lengths_of(ids, self.config.sep_token_id)
        if lengths is not None and tokens is not None:
            check_question_lengths(lengths, tokens.shape[0])
            question_BL = question_mask(lengths.flatten(), tokens.shape[1])
        arrays = {name: x for name, x in arrays.items() if name != "question_lengths"}
        has_types = self.config.type_vocab_size > 1  # with a single one, all tokens are of it
        if arrays.get("token_type_ids") is None and question_BL is not None and has_types:
            arrays["token_type_ids"] = (~question_BL).long()
        return arrays, {"question_BL": question_BL}

    def score(self, last_BLD: Tensor, pooled_BD: Tensor | None, question_BL: Tensor | None) -> tuple[Scores, Taps]:
        """Return start_logits and end_logits [B, L], and taps: the scores before the question is masked."""
        span_BL2 = self.qa_classifier(last_BLD)
        masked_BL2 = span_BL2 if question_BL is None else mask_question(span_BL2, question_BL)
        start_BL, end_BL = masked_BL2.unbind(-1)
        return {"start_logits": start_BL, "end_logits": end_BL}, {"span_logits": span_BL2}

    def loss(self, scores: Scores, start_positions: Tensor | None, end_positions: Tensor | None) -> Tensor | None:
        """Return the mean of start's and end's cross entropy; None without positions."""
        start_BL, end_BL = scores.values()
        check_positions(start_positions, end_positions, start_BL.shape[0])
        if start_positions is None or end_positions is None:
            return None
        return question_answering_loss(start_BL, end_BL, start_positions, end_positions)
