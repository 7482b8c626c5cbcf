"""The base model and the seven models with a task head.

Legend: B batch, L length, D hidden, N choices of a multiple choice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bigbird_port.config import BigBirdConfig
from models_torch.attention import Taps
from models_torch.embeddings import BigBirdEmbeddings
from models_torch.encoder import BigBirdEncoder
from models_torch.heads import (
    BigBirdClassificationHead,
    BigBirdPreTrainingHeads,
    BigBirdQuestionAnsweringHead,
    classifier_dropout,
    mask_question,
    question_lengths_of,
    question_mask,
)
from models_torch.outputs import (
    BigBirdForPreTrainingOutput,
    BigBirdForQuestionAnsweringOutput,
    BigBirdHeadOutput,
    BigBirdModelOutput,
)
from models_torch.pretrained import BigBirdPreTrainedModel


class BigBirdModel(BigBirdPreTrainedModel):
    """Embeddings, encoder and pooler."""

    def __init__(self, config: BigBirdConfig, add_pooling_layer: bool = True) -> None:
        super().__init__()
        self.config = config
        self.embeddings = BigBirdEmbeddings(config)
        self.encoder = BigBirdEncoder(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if add_pooling_layer else None

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        output_hidden_states: bool = False,
        output_taps: bool = False,
    ) -> BigBirdModelOutput:
        """Encode ids [B, L].

        attention_mask [B, L]: 1 for tokens, 0 for padding; None takes what differs from pad_token_id, as the original.
        token_type_ids, position_ids [B, L]: None is 0 and 0 .. L-1. Raises ValueError for a wrong shape or length.
        """
        check_inputs(self.config, input_ids, attention_mask, token_type_ids, position_ids)
        mask_BL = (input_ids != self.config.pad_token_id) if attention_mask is None else attention_mask.bool()
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        x_BLD, taps = self.embeddings(input_ids, token_type_ids, position_ids)
        hidden_states, layer_taps = self.encoder(x_BLD, mask_BL, output_taps)
        pooled_BD = None if self.pooler is None else torch.tanh(self.pooler(hidden_states[-1][:, 0]))
        return BigBirdModelOutput(
            last_hidden_state=hidden_states[-1],
            pooler_output=pooled_BD,
            hidden_states=hidden_states if output_hidden_states else None,
            taps=taps | layer_taps if output_taps else None,
        )


class BigBirdForPreTraining(BigBirdPreTrainedModel):
    """Masked language modelling and next-sentence prediction."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BigBirdModel(config)
        self.cls = BigBirdPreTrainingHeads(config, next_sentence=True)

    def forward(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> BigBirdForPreTrainingOutput:
        """Score every token and the sentence pair; the arguments are BigBirdModel's."""
        base = self.bert(input_ids, *args, **kwargs)
        embedding_VD = self.bert.embeddings.word_embeddings.weight
        logits_BLV, taps = self.cls.predictions(base.last_hidden_state, embedding_VD)
        return BigBirdForPreTrainingOutput(
            prediction_logits=logits_BLV,
            seq_relationship_logits=self.cls.seq_relationship(base.pooler_output),
            hidden_states=base.hidden_states,
            taps=join_taps(base.taps, taps | {"pooler_output": base.pooler_output}),
        )


class BigBirdForMaskedLM(BigBirdPreTrainedModel):
    """Masked language modelling."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BigBirdModel(config)
        self.cls = BigBirdPreTrainingHeads(config, next_sentence=False)

    def forward(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> BigBirdHeadOutput:
        """Score every token; the arguments are BigBirdModel's."""
        base = self.bert(input_ids, *args, **kwargs)
        embedding_VD = self.bert.embeddings.word_embeddings.weight
        logits_BLV, taps = self.cls.predictions(base.last_hidden_state, embedding_VD)
        return BigBirdHeadOutput(logits_BLV, base.hidden_states, join_taps(base.taps, taps))


class BigBirdForCausalLM(BigBirdPreTrainedModel):
    """Causal language modelling: full attention to what precedes, whatever attention the configuration names."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.config = config.for_head(self.head)
        self.bert = BigBirdModel(self.config)
        self.cls = BigBirdPreTrainingHeads(self.config, next_sentence=False)

    def forward(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> BigBirdHeadOutput:
        """Score every next token; the arguments are BigBirdModel's."""
        base = self.bert(input_ids, *args, **kwargs)
        embedding_VD = self.bert.embeddings.word_embeddings.weight
        logits_BLV, taps = self.cls.predictions(base.last_hidden_state, embedding_VD)
        return BigBirdHeadOutput(logits_BLV, base.hidden_states, join_taps(base.taps, taps))


class BigBirdForSequenceClassification(BigBirdPreTrainedModel):
    """Classification of a text, with the head that config.classifier_style names."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BigBirdModel(config)
        if config.classifier_style == "original":
            self.dropout = nn.Dropout(classifier_dropout(config))
            self.classifier: nn.Module = nn.Linear(config.hidden_size, config.num_labels)
        else:
            self.classifier = BigBirdClassificationHead(config)

    def forward(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> BigBirdHeadOutput:
        """Score every label; the arguments are BigBirdModel's."""
        base = self.bert(input_ids, *args, **kwargs)
        taps = base.taps
        if self.config.classifier_style == "original":
            taps = join_taps(taps, {"pooler_output": base.pooler_output})
            logits_BC = self.classifier(self.dropout(base.pooler_output))
        else:
            logits_BC = self.classifier(base.last_hidden_state)
        return BigBirdHeadOutput(logits_BC, base.hidden_states, taps)


class BigBirdForMultipleChoice(BigBirdPreTrainedModel):
    """The best of several texts: every input has the shape [B, N, L]."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BigBirdModel(config)
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, 1)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> BigBirdHeadOutput:
        """Score every choice, [B, N]; hidden states and taps have B x N as their batch."""
        check_choices(input_ids)
        base = self.bert(
            flatten_choices(input_ids),
            flatten_choices(attention_mask),
            flatten_choices(token_type_ids),
            flatten_choices(position_ids),
            **kwargs,
        )
        taps = join_taps(base.taps, {"pooler_output": base.pooler_output})
        scores = self.classifier(self.dropout(base.pooler_output))
        return BigBirdHeadOutput(scores.view(input_ids.shape[:2]), base.hidden_states, taps)


class BigBirdForTokenClassification(BigBirdPreTrainedModel):
    """Classification of every token."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BigBirdModel(config)
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> BigBirdHeadOutput:
        """Score every label for every token; the arguments are BigBirdModel's."""
        base = self.bert(input_ids, *args, **kwargs)
        logits_BLC = self.classifier(self.dropout(base.last_hidden_state))
        return BigBirdHeadOutput(logits_BLC, base.hidden_states, base.taps)


class BigBirdForQuestionAnswering(BigBirdPreTrainedModel):
    """Start and end of an answer in a context that follows the question."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BigBirdModel(config, add_pooling_layer=False)
        self.qa_classifier = BigBirdQuestionAnsweringHead(config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        question_lengths: Tensor | None = None,
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
            token_type_ids = (~question_BL).to(input_ids.dtype)
        base = self.bert(input_ids, attention_mask, token_type_ids, position_ids, **kwargs)
        span_BL2 = self.qa_classifier(base.last_hidden_state)
        start_BL, end_BL = mask_question(span_BL2, question_BL).unbind(-1)
        return BigBirdForQuestionAnsweringOutput(
            start_BL, end_BL, base.hidden_states, join_taps(base.taps, {"span_logits": span_BL2})
        )


def join_taps(base: Taps | None, head: dict[str, Any]) -> Taps | None:
    """Return base and head taps together, or None where none were asked for."""
    return None if base is None else base | head


def flatten_choices(x_BNL: Any) -> Any:
    """Return [B, N, L] as [B x N, L]; None stays None."""
    return None if x_BNL is None else x_BNL.reshape(-1, x_BNL.shape[-1])


def check_choices(input_ids: Tensor) -> None:
    """Raise ValueError unless the ids of a multiple choice have three axes."""
    if input_ids.ndim != 3:
        raise ValueError(f"input_ids has shape {list(input_ids.shape)}, expected [batch, choices, length]")


def check_inputs(config: BigBirdConfig, input_ids: Tensor, *others: Tensor | None) -> None:
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
