"""The four models with a task head.

Legend: B batch, L length of the texts, T tokens of the decoder, D hidden, V vocabulary, C labels.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from bigbird_port.families.pegasus.summaries import check_summaries
from bigbird_port.models.output import ModelOutput
from models_torch.arguments import forward_of
from models_torch.bigbird.inputs import check_class_labels, check_labels, check_positions
from models_torch.bigbird.losses import causal_lm_loss, classification_loss, question_answering_loss
from models_torch.few_rows import product
from models_torch.pegasus.generation import GenerationMixin
from models_torch.pegasus.inputs import DecoderArrays
from models_torch.pegasus.losses import decoder_inputs, summary_loss
from models_torch.pegasus.model import BigBirdPegasusModel, run_decoder
from models_torch.pegasus.outputs import (
    BigBirdPegasusDecoderOutput,
    BigBirdPegasusHeadOutput,
    BigBirdPegasusModelOutput,
    BigBirdPegasusQuestionAnsweringOutput,
)
from models_torch.pegasus.pretrained import BigBirdPegasusPreTrainedModel
from models_torch.pegasus.stacks import BigBirdPegasusDecoder

TEXT = ("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask")
HEADS = ("head_mask", "decoder_head_mask", "cross_attn_head_mask")
EMBEDS = ("inputs_embeds", "decoder_inputs_embeds")
ASKED = ("use_cache", "output_attentions", "output_hidden_states", "return_dict")
Scores = dict[str, Tensor]  # by the output's field


class BigBirdPegasusTaskModel(BigBirdPegasusPreTrainedModel, abstract=True):
    """Base of the models with a task head on encoder and decoder.

    arguments: forward's, in order. labels: those of them that go to ``loss``. output: what forward returns.
    """

    arguments: ClassVar[tuple[str, ...]]
    labels: ClassVar[tuple[str, ...]] = ("labels",)
    output: ClassVar[type[ModelOutput]] = BigBirdPegasusHeadOutput

    def __init__(self, config: BigBirdPegasusConfig, *, seed: int | None = 0) -> None:
        super().__init__(config)
        self.model = BigBirdPegasusModel(self.config, seed=None)
        self.add_head()
        self._initialise(seed)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "arguments" in cls.__dict__:
            cls.forward = forward_of(cls.arguments)

    def add_head(self) -> None:
        """Make what stands behind the decoder."""

    def prepare(self, given: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
        """Return the base model's arguments, with what follows from the labels."""
        return given

    def score(self, output: BigBirdPegasusModelOutput, given: dict[str, Any]) -> Scores:
        """Return the scores by their names."""
        raise NotImplementedError

    def loss(self, scores: Scores, **labels: Any) -> Tensor | None:
        """Return the loss; None without labels."""
        raise NotImplementedError

    def _answer(self, given: dict[str, Any]) -> Any:
        """Run the model on forward's arguments by name."""
        return_dict = given.pop("return_dict")
        labels = {name: given.pop(name) for name in self.labels}
        given = self.prepare(given, labels)
        base = self.model(**given, return_dict=True)
        scores = self.score(base, given)
        kept = {name: value for name, value in vars(base).items() if name != "last_hidden_state"}
        if kept["taps"] is not None:
            kept["taps"] = kept["taps"] | scores
        output = self.output(loss=self.loss(scores, **labels), **scores, **kept)  # type: ignore[call-arg]
        return self._returned(output, return_dict)


class BigBirdPegasusForConditionalGeneration(GenerationMixin, BigBirdPegasusTaskModel):
    """Summarisation.

    labels [B, T]: the summary's ids, padding 0 or -100. Without decoder_input_ids the decoder reads what belongs to
    them by config.loss_style, which says as well what the loss is (losses.py).
    """

    arguments = (*TEXT, *HEADS, "encoder_outputs", "past_key_values", *EMBEDS, "labels", *ASKED)

    def prepare(self, given: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments with the decoder's inputs, which follow from the labels."""
        ids = labels["labels"]
        if ids is None:
            return given
        check_summaries(ids, self.config.max_position_embeddings)
        check_labels("labels", ids, tuple(ids.shape), self.config.vocab_size)
        if given["decoder_input_ids"] is None and given["decoder_inputs_embeds"] is None:
            given = given | {"decoder_input_ids": decoder_inputs(ids, self.config)}
        return given | {"use_cache": bool(given["use_cache"])}

    def score(self, output: BigBirdPegasusModelOutput, given: dict[str, Any]) -> Scores:
        """Return logits [B, T, V]: the output layer is the table of words, not scaled."""
        return {"logits": product(output.last_hidden_state, self.model.shared.weight)}

    def loss(self, scores: Scores, **labels: Any) -> Tensor | None:
        """Return the loss of config.loss_style; None without labels."""
        ids, logits = labels["labels"], scores["logits"]
        check_labels("labels", ids, tuple(logits.shape[:2]), self.config.vocab_size)
        return None if ids is None else summary_loss(logits, ids, self.config.label_smoothing, self.config.loss_style)


class BigBirdPegasusForSequenceClassification(BigBirdPegasusTaskModel):
    """Classification of a text by the decoder's state at its last end-of-sequence token.

    labels: classes [B], or numbers [B, C] for regression and multi-label classification (config.problem_type).
    """

    arguments = (*TEXT, *HEADS, "encoder_outputs", *EMBEDS, "labels", *ASKED)

    def add_head(self) -> None:
        """Two dense layers."""
        self.classification_head = BigBirdPegasusClassificationHead(self.config)

    def prepare(self, given: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments; raises ValueError where there are no ids to find the end in."""
        if given["input_ids"] is None:
            raise ValueError("input_ids was not given: the end-of-sequence token is looked for in them")
        return given | {"use_cache": bool(given["use_cache"])}

    def score(self, output: BigBirdPegasusModelOutput, given: dict[str, Any]) -> Scores:
        """Return logits [B, C]."""
        ends_BL = given["input_ids"] == self.config.eos_token_id
        last_BTD = output.last_hidden_state
        if ends_BL.shape != last_BTD.shape[:2] or not ends_BL.any(dim=1).all():
            raise ValueError(
                f"input_ids: every text must hold the end-of-sequence token {self.config.eos_token_id}, and the "
                "decoder must read the text itself: add the token, and leave decoder_input_ids out"
            )
        places_B = (ends_BL * torch.arange(1, ends_BL.shape[1] + 1, device=ends_BL.device)).argmax(dim=1)
        ends_BD = last_BTD[torch.arange(len(last_BTD), device=last_BTD.device), places_B]
        return {"logits": self.classification_head(ends_BD)}

    def loss(self, scores: Scores, **labels: Any) -> Tensor | None:
        """Return the loss of config.problem_type; None without labels."""
        classes, logits, config = labels["labels"], scores["logits"], self.config
        check_class_labels(classes, len(logits), config.num_labels, config.problem_type)
        return None if classes is None else classification_loss(logits, classes, config.num_labels, config.problem_type)


class BigBirdPegasusForQuestionAnswering(BigBirdPegasusTaskModel):
    """Start and end of an answer among the decoder's tokens. start_positions, end_positions [B]."""

    arguments = (*TEXT, *HEADS, "encoder_outputs", "start_positions", "end_positions", *EMBEDS, *ASKED)
    labels = ("start_positions", "end_positions")
    output = BigBirdPegasusQuestionAnsweringOutput

    def add_head(self) -> None:
        """One dense layer."""
        self.qa_outputs = nn.Linear(self.config.d_model, 2)

    def prepare(self, given: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments; no cache unless it is asked for."""
        return given | {"use_cache": bool(given["use_cache"])}

    def score(self, output: BigBirdPegasusModelOutput, given: dict[str, Any]) -> Scores:
        """Return start_logits and end_logits [B, T]."""
        starts_BT, ends_BT = self.qa_outputs(output.last_hidden_state).unbind(dim=-1)
        return {"start_logits": starts_BT, "end_logits": ends_BT}

    def loss(self, scores: Scores, **labels: Any) -> Tensor | None:
        """Return the mean of both cross entropies; None without positions."""
        starts, ends = labels["start_positions"], labels["end_positions"]
        check_positions(starts, ends, len(scores["start_logits"]))
        return (
            None
            if starts is None
            else question_answering_loss(scores["start_logits"], scores["end_logits"], starts, ends)
        )


class BigBirdPegasusForCausalLM(BigBirdPegasusPreTrainedModel):
    """The decoder alone, which may attend to the states of an encoder. labels [B, T]: the ids themselves, or -100."""

    arguments = (
        *("input_ids", "attention_mask", "encoder_hidden_states", "encoder_attention_mask"),
        *("head_mask", "cross_attn_head_mask", "past_key_values", "inputs_embeds", "labels", *ASKED),
    )

    def __init__(self, config: BigBirdPegasusConfig, *, seed: int | None = 0) -> None:
        super().__init__(config)
        self.model = BigBirdPegasusDecoderWrapper(self.config)
        self._initialise(seed)

    def _answer(self, given: dict[str, Any]) -> Any:
        """Run the decoder on forward's arguments by name."""
        arrays = DecoderArrays(
            *(given["input_ids"], given["inputs_embeds"], given["attention_mask"], given["encoder_hidden_states"]),
            *(given["encoder_attention_mask"], given["head_mask"], given["cross_attn_head_mask"]),
            given["past_key_values"],
        )
        attentions, states = (
            bool(getattr(self.config, name) if given[name] is None else given[name]) for name in ASKED[1:3]
        )
        output = run_decoder(
            self.model.decoder, arrays, given["use_cache"], attentions, states, given["output_taps"], ""
        )
        logits_BTV = functional.linear(output.last_hidden_state, self.model.decoder.embed_tokens.weight)  # type: ignore[arg-type]
        labels, loss = given["labels"], None
        check_labels("labels", labels, tuple(logits_BTV.shape[:2]), self.config.vocab_size)
        if labels is not None:
            loss = causal_lm_loss(logits_BTV, labels)
        kept = {
            name: value for name, value in vars(output).items() if name not in ("last_hidden_state", "loss", "logits")
        }
        return self._returned(BigBirdPegasusDecoderOutput(loss=loss, logits=logits_BTV, **kept), given["return_dict"])


BigBirdPegasusForCausalLM.forward = forward_of(BigBirdPegasusForCausalLM.arguments)


class BigBirdPegasusClassificationHead(nn.Module):
    """Two dense layers on one state."""

    def __init__(self, config: BigBirdPegasusConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_model)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.out_proj = nn.Linear(config.d_model, config.num_labels)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Return scores [B, C]."""
        return self.out_proj(self.dropout(torch.tanh(self.dense(self.dropout(x_BD)))))


class BigBirdPegasusDecoderWrapper(nn.Module):
    """The decoder under the name that it has in transformers."""

    def __init__(self, config: BigBirdPegasusConfig) -> None:
        super().__init__()
        words = nn.Embedding(config.vocab_size, config.d_model)
        positions = nn.Embedding(config.max_position_embeddings, config.d_model)
        self.decoder = BigBirdPegasusDecoder(config, words, positions)
