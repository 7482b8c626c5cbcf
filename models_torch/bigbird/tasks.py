"""The seven models with a task head.

Legend: B batch, L length, K keys (cached and new tokens), D hidden, N heads, C labels or choices, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bigbird_port.config import BigBirdConfig
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
from models_torch.bigbird.model import BigBirdModel, Past, Scores
from models_torch.bigbird.outputs import (
    BigBirdForPreTrainingOutput,
    BigBirdForQuestionAnsweringOutput,
    BigBirdHeadOutput,
    BigBirdModelOutput,
)
from models_torch.pretrained.model import BigBirdPreTrainedModel


class BigBirdForPreTraining(BigBirdPreTrainedModel):
    """Masked language modelling and next-sentence prediction."""

    def __init__(self, config: BigBirdConfig, *, seed: int | None = 0) -> None:
        super().__init__(config)
        self.bert = BigBirdModel(self.config, seed=None)
        self.cls = BigBirdPreTrainingHeads(self.config, next_sentence=True)
        self._initialise(seed)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        output_taps: bool = False,
        generator: torch.Generator | None = None,
    ) -> BigBirdForPreTrainingOutput | Any:
        """Score every token and the sentence pair; see BigBirdModel for the arguments.

        labels [B, L]: ids, -100 where there is nothing to predict. next_sentence_label [B]: 0 next, 1 random. The
        loss is their sum, and asks for labels.
        """
        base = self.bert(
            *(input_ids, attention_mask, token_type_ids, position_ids, head_mask, inputs_embeds),
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            output_taps=output_taps,
            generator=generator,
        )
        scores, taps = self.score(base.last_hidden_state, base.pooler_output)
        logits_BLV, next_B2 = scores.values()
        check_labels("labels", labels, logits_BLV.shape[:2], self.config.vocab_size)
        check_labels("next_sentence_label", next_sentence_label, (len(next_B2),), 2)
        loss = None if labels is None else masked_lm_loss(logits_BLV, labels)
        if loss is not None and next_sentence_label is not None:
            loss = loss + next_sentence_loss(next_B2, next_sentence_label)
        output = BigBirdForPreTrainingOutput(
            loss=loss,
            **scores,
            hidden_states=base.hidden_states,
            attentions=base.attentions,
            taps=join_taps(base.taps, taps),
        )
        return self._returned(output, return_dict)

    def score(self, last_BLD: Tensor, pooled_BD: Tensor) -> tuple[Scores, Taps]:
        """Return prediction_logits [B, L, V] and seq_relationship_logits [B, 2], and taps."""
        logits_BLV, taps = self.cls.predictions(last_BLD, self.bert.embeddings.word_embeddings.weight)
        scores = {"prediction_logits": logits_BLV, "seq_relationship_logits": self.cls.seq_relationship(pooled_BD)}
        return scores, taps | {"pooler_output": pooled_BD}


class BigBirdForMaskedLM(BigBirdPreTrainedModel):
    """Masked language modelling."""

    def __init__(self, config: BigBirdConfig, *, seed: int | None = 0) -> None:
        super().__init__(config)
        self.bert = BigBirdModel(self.config, seed=None)
        self.cls = BigBirdPreTrainingHeads(self.config, next_sentence=False)
        self._initialise(seed)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        output_taps: bool = False,
        generator: torch.Generator | None = None,
    ) -> BigBirdHeadOutput | Any:
        """Score every token; see BigBirdModel for the arguments. labels [B, L]: ids, -100 where not to predict."""
        base = self.bert(
            *(input_ids, attention_mask, token_type_ids, position_ids, head_mask, inputs_embeds),
            *(encoder_hidden_states, encoder_attention_mask),
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            output_taps=output_taps,
            generator=generator,
        )
        scores, taps = self.score(base.last_hidden_state, base.pooler_output)
        check_labels("labels", labels, scores["logits"].shape[:2], self.config.vocab_size)
        loss = None if labels is None else masked_lm_loss(scores["logits"], labels)
        return self._returned(_head_output(loss, scores, base, taps), return_dict)

    def score(self, last_BLD: Tensor, pooled_BD: Tensor | None) -> tuple[Scores, Taps]:
        """Return logits [B, L, V], and taps."""
        logits_BLV, taps = self.cls.predictions(last_BLD, self.bert.embeddings.word_embeddings.weight)
        return {"logits": logits_BLV}, taps


class BigBirdForCausalLM(GenerationMixin, BigBirdPreTrainedModel):
    """Causal language modelling: full attention to what precedes, whatever attention the configuration names."""

    def __init__(self, config: BigBirdConfig, *, seed: int | None = 0) -> None:
        super().__init__(config)
        self.bert = BigBirdModel(self.config, seed=None)
        self.cls = BigBirdPreTrainingHeads(self.config, next_sentence=False)
        self._initialise(seed)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Past | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        output_taps: bool = False,
        generator: torch.Generator | None = None,
    ) -> BigBirdHeadOutput | Any:
        """Score every next token; see BigBirdModel for the arguments. labels [B, L]: the ids themselves, or -100."""
        base = self.bert(
            *(input_ids, attention_mask, token_type_ids, position_ids, head_mask, inputs_embeds),
            *(encoder_hidden_states, encoder_attention_mask, past_key_values, use_cache),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            output_taps=output_taps,
            generator=generator,
        )
        scores, taps = self.score(base.last_hidden_state, base.pooler_output)
        check_labels("labels", labels, scores["logits"].shape[:2], self.config.vocab_size)
        loss = None if labels is None else causal_lm_loss(scores["logits"], labels)
        return self._returned(_head_output(loss, scores, base, taps), return_dict)

    def score(self, last_BLD: Tensor, pooled_BD: Tensor | None) -> tuple[Scores, Taps]:
        """Return logits [B, L, V], and taps."""
        logits_BLV, taps = self.cls.predictions(last_BLD, self.bert.embeddings.word_embeddings.weight)
        return {"logits": logits_BLV}, taps


class BigBirdForSequenceClassification(BigBirdPreTrainedModel):
    """Classification of a text, with the head that config.classifier_style names."""

    def __init__(self, config: BigBirdConfig, *, seed: int | None = 0) -> None:
        super().__init__(config)
        self.bert = BigBirdModel(self.config, seed=None)
        if config.classifier_style == "original":
            self.dropout = nn.Dropout(classifier_dropout(config))
            self.classifier: nn.Module = nn.Linear(config.hidden_size, config.num_labels)
        else:
            self.classifier = BigBirdClassificationHead(config)
        self._initialise(seed)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        output_taps: bool = False,
        generator: torch.Generator | None = None,
    ) -> BigBirdHeadOutput | Any:
        """Score every label; see BigBirdModel for the arguments.

        labels: classes [B], or numbers [B, C] for regression and multi-label classification (config.problem_type).
        """
        base = self.bert(
            *(input_ids, attention_mask, token_type_ids, position_ids, head_mask, inputs_embeds),
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            output_taps=output_taps,
            generator=generator,
        )
        scores, taps = self.score(base.last_hidden_state, base.pooler_output)
        labelled = (self.config.num_labels, self.config.problem_type)
        check_class_labels(labels, len(scores["logits"]), *labelled)
        loss = None if labels is None else classification_loss(scores["logits"], labels, *labelled)
        return self._returned(_head_output(loss, scores, base, taps), return_dict)

    def score(self, last_BLD: Tensor, pooled_BD: Tensor) -> tuple[Scores, Taps]:
        """Return logits [B, C], and taps."""
        if self.config.classifier_style == "original":
            return {"logits": self.classifier(self.dropout(pooled_BD))}, {"pooler_output": pooled_BD}
        return {"logits": self.classifier(last_BLD)}, {}


class BigBirdForMultipleChoice(BigBirdPreTrainedModel):
    """The best of several texts: every input has the shape [B, C, L]."""

    def __init__(self, config: BigBirdConfig, *, seed: int | None = 0) -> None:
        super().__init__(config)
        self.bert = BigBirdModel(self.config, seed=None)
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, 1)
        self._initialise(seed)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        output_taps: bool = False,
        generator: torch.Generator | None = None,
    ) -> BigBirdHeadOutput | Any:
        """Score every choice, [B, C]; hidden states, attentions and taps have B x C as their batch.

        labels [B]: the right choice. See BigBirdModel for the other arguments, which have an axis of choices here.
        """
        ids = {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "token_type_ids": token_type_ids}
        arrays, beside = self.split_inputs(ids | {"attention_mask": attention_mask, "position_ids": position_ids})
        base = self.bert(
            **arrays,
            head_mask=head_mask,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            output_taps=output_taps,
            generator=generator,
        )
        scores, taps = self.score(base.last_hidden_state, base.pooler_output, **beside)
        check_labels("labels", labels, beside["shape"][:1], beside["shape"][1])
        loss = None if labels is None else multiple_choice_loss(scores["logits"], labels)
        return self._returned(_head_output(loss, scores, base, taps), return_dict)

    def split_inputs(self, arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arrays with every choice as a text of its own, and ``shape`` (batch, choices)."""
        shape = check_choices(arrays.get("input_ids"), arrays.get("inputs_embeds"))
        return {name: flatten_choices(x) for name, x in arrays.items()}, {"shape": shape}

    def score(self, last_BLD: Tensor, pooled_BD: Tensor, shape: tuple[int, int]) -> tuple[Scores, Taps]:
        """Return logits [B, C], and taps; the batch of hidden states is B x C."""
        return {"logits": self.classifier(self.dropout(pooled_BD)).view(shape)}, {"pooler_output": pooled_BD}


class BigBirdForTokenClassification(BigBirdPreTrainedModel):
    """Classification of every token."""

    def __init__(self, config: BigBirdConfig, *, seed: int | None = 0) -> None:
        super().__init__(config)
        self.bert = BigBirdModel(self.config, seed=None)
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self._initialise(seed)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        output_taps: bool = False,
        generator: torch.Generator | None = None,
    ) -> BigBirdHeadOutput | Any:
        """Score every label for every token; see BigBirdModel for the arguments. labels [B, L]: -100 is ignored."""
        base = self.bert(
            *(input_ids, attention_mask, token_type_ids, position_ids, head_mask, inputs_embeds),
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            output_taps=output_taps,
            generator=generator,
        )
        scores, taps = self.score(base.last_hidden_state, base.pooler_output)
        check_labels("labels", labels, scores["logits"].shape[:2], self.config.num_labels)
        loss = None if labels is None else token_classification_loss(scores["logits"], labels)
        return self._returned(_head_output(loss, scores, base, taps), return_dict)

    def score(self, last_BLD: Tensor, pooled_BD: Tensor | None) -> tuple[Scores, Taps]:
        """Return logits [B, L, C], and taps."""
        return {"logits": self.classifier(self.dropout(last_BLD))}, {}


class BigBirdForQuestionAnswering(BigBirdPreTrainedModel):
    """Start and end of an answer in a context that follows the question."""

    def __init__(self, config: BigBirdConfig, add_pooling_layer: bool = False, *, seed: int | None = 0) -> None:
        super().__init__(config)
        self.bert = BigBirdModel(self.config, add_pooling_layer, seed=None)
        self.qa_classifier = BigBirdQuestionAnsweringHead(config)
        self._initialise(seed)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        question_lengths: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        output_taps: bool = False,
        generator: torch.Generator | None = None,
    ) -> BigBirdForQuestionAnsweringOutput | Any:
        """Score every token as start and as end of the answer; see BigBirdModel for the other arguments.

        question_lengths [B] or [B, 1]: tokens before the context, which cannot be the answer; None counts up to the
        first sep_token_id (with inputs_embeds: no question). token_type_ids: None is 0 for the question, 1 for the
        context. start_positions, end_positions [B]: those at or beyond L are ignored, negative ones count as 0.
        """
        ids = {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "token_type_ids": token_type_ids}
        arrays, beside = self.split_inputs(ids | {"question_lengths": question_lengths})
        base = self.bert(
            **arrays,
            attention_mask=attention_mask,
            position_ids=position_ids,
            head_mask=head_mask,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            output_taps=output_taps,
            generator=generator,
        )
        scores, taps = self.score(base.last_hidden_state, base.pooler_output, **beside)
        start_BL, end_BL = scores.values()
        loss = None
        check_positions(start_positions, end_positions, len(start_BL))
        if start_positions is not None and end_positions is not None:
            loss = question_answering_loss(start_BL, end_BL, start_positions, end_positions)
        output = BigBirdForQuestionAnsweringOutput(
            loss=loss,
            **scores,
            pooler_output=base.pooler_output,
            hidden_states=base.hidden_states,
            attentions=base.attentions,
            taps=join_taps(base.taps, taps),
        )
        return self._returned(output, return_dict)

    def split_inputs(self, arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arrays with token types, and question_BL: True on the question's tokens (None: unknown)."""
        ids, lengths = arrays.get("input_ids"), arrays.get("question_lengths")
        tokens = ids if ids is not None else arrays.get("inputs_embeds")
        question_BL = None
        if lengths is None and ids is not None:
            lengths = question_lengths_of(ids, self.config.sep_token_id)
        if lengths is not None and tokens is not None:
            check_question_lengths(lengths, len(tokens))
            question_BL = question_mask(lengths.flatten(), tokens.shape[1])
        arrays = {name: x for name, x in arrays.items() if name != "question_lengths"}
        if arrays.get("token_type_ids") is None and question_BL is not None:
            arrays["token_type_ids"] = (~question_BL).long()
        return arrays, {"question_BL": question_BL}

    def score(self, last_BLD: Tensor, pooled_BD: Tensor | None, question_BL: Tensor | None) -> tuple[Scores, Taps]:
        """Return start_logits and end_logits [B, L], and taps: the scores before the question is masked."""
        span_BL2 = self.qa_classifier(last_BLD)
        masked_BL2 = span_BL2 if question_BL is None else mask_question(span_BL2, question_BL)
        start_BL, end_BL = masked_BL2.unbind(-1)
        return {"start_logits": start_BL, "end_logits": end_BL}, {"span_logits": span_BL2}


def join_taps(base: Taps | None, head: Taps) -> Taps | None:
    """Return base and head taps together, or None where none were asked for."""
    return None if base is None else base | head


def _head_output(loss: Tensor | None, scores: Scores, base: BigBirdModelOutput, taps: Taps) -> BigBirdHeadOutput:
    return BigBirdHeadOutput(
        loss=loss,
        logits=scores["logits"],
        past_key_values=base.past_key_values,
        hidden_states=base.hidden_states,
        attentions=base.attentions,
        cross_attentions=base.cross_attentions,
        taps=join_taps(base.taps, taps),
    )
