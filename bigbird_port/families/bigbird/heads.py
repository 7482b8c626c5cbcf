"""BigBird's eight heads, each in one record: what it computes, what it is trained on, what the original says of it."""

from __future__ import annotations

from dataclasses import replace

from bigbird_port.families.bigbird.taps import POOLED, SPAN, TRANSFORM
from bigbird_port.families.family import Head, Tap
from bigbird_port.families.losses import LossTerm, Original

_BIDIRECTIONAL = "the original evaluated one text with bidirectional attention"
_WORDS = "batch length vocabulary"


def _scores(name: str, axes: str, module: str, *sources: str, kind: str = "") -> Tap:
    """Scores of which a softmax over the last axis is taken."""
    return Tap(name, axes, module, sources, kind or name, scores=True, distribution=True)


def _side(name: str) -> Tap:
    """Scores of a side of the answer, with a penalty taken from the question's tokens."""
    return Tap(name, "batch length", SPAN.module, (SPAN.name,), SPAN.name, scores=True, penalised=True)


_CLASSES = (_scores("logits", "batch labels", "classifier", POOLED.name),)
_NEXT_SENTENCE = "seq_relationship_logits"
_LOGITS = replace(_scores("logits", _WORDS, "cls.predictions", TRANSFORM.name), bias="cls.predictions.bias")
_OF_WORDS = replace(_LOGITS, name="prediction_logits")
_LANGUAGE = (TRANSFORM, _LOGITS)
_MASKED = Original("mlm", "logits", ("masked_lm_positions", "masked_lm_ids"))

_RECORDS = (
    Head(
        "base",
        "BigBirdModel",
        (POOLED,),
        (),
        "none",
        no_loss="the base model has no loss",
    ),
    Head(
        "pretraining",
        "BigBirdForPreTraining",
        (TRANSFORM, _OF_WORDS, POOLED, _scores(_NEXT_SENTENCE, "batch classes", "cls.seq_relationship", POOLED.name)),
        (
            LossTerm("masked_lm_loss", ("prediction_logits", "labels")),
            LossTerm("next_sentence_loss", (_NEXT_SENTENCE, "next_sentence_label")),
        ),
        "masked words, next sentence",
        original=(
            Original("nsp", _NEXT_SENTENCE, ("next_sentence_labels",)),
            replace(_MASKED, scores="prediction_logits"),
        ),
    ),
    Head(
        "masked-lm",
        "BigBirdForMaskedLM",
        _LANGUAGE,
        (LossTerm("masked_lm_loss", ("logits", "labels")),),
        "masked words",
        aliases=("mlm",),
        original=(_MASKED,),
    ),
    Head(
        "causal-lm",
        "BigBirdForCausalLM",
        _LANGUAGE,
        (LossTerm("causal_lm_loss", ("logits", "labels")),),
        "next words",
        aliases=("clm",),
        decodes=True,
        unjudged=_BIDIRECTIONAL,
        settings={"is_decoder": True, "attention_type": "original_full"},
        settings_note="is_decoder is set, and attention is full",
    ),
    Head(
        "sequence-classification",
        "BigBirdForSequenceClassification",
        (replace(POOLED, when=("classifier_style", "original")), *_CLASSES),
        (LossTerm("classification_loss", ("logits", "labels"), ("num_labels", "problem_type")),),
        "classes",
        aliases=("classification",),
        original=(Original("cls", "logits", ("labels",)),),
    ),
    Head(
        "multiple-choice",
        "BigBirdForMultipleChoice",
        (POOLED, _scores("logits", "batch choices", "classifier", POOLED.name)),
        (LossTerm("multiple_choice_loss", ("logits", "labels")),),
        "choices",
        inputs="choices",
        unjudged=_BIDIRECTIONAL,
    ),
    Head(
        "token-classification",
        "BigBirdForTokenClassification",
        (_scores("logits", "batch length labels", "classifier"),),
        (LossTerm("token_classification_loss", ("logits", "labels")),),
        "class of each token",
    ),
    Head(
        "qa",
        "BigBirdForQuestionAnswering",
        (SPAN, _side("start_logits"), _side("end_logits")),
        (LossTerm("question_answering_loss", ("start_logits", "end_logits", "start_positions", "end_positions")),),
        "spans",
        aliases=("question-answering",),
        inputs="question",
    ),
)
HEADS: dict[str, Head] = {head.name: head for head in _RECORDS}
