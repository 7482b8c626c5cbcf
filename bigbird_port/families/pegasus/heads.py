"""BigBird-Pegasus' five heads, each in one record."""

from __future__ import annotations

from bigbird_port.families.family import Head, Tap
from bigbird_port.families.losses import LossTerm, Original

_NO_HEAD = "the original's model of this kind has no such head"


def _scores(axes: str, module: str) -> Tap:
    """Scores of which a softmax over the last axis is taken."""
    return Tap("logits", axes, module, kind="logits", scores=True, distribution=True)


_WORDS = _scores("batch summary vocabulary", "embeddings.word_embeddings")

_RECORDS = (
    Head("base", "BigBirdPegasusModel", (), (), "none", inputs="summaries", no_loss="the base model has no loss"),
    Head(
        "conditional-generation",
        "BigBirdPegasusForConditionalGeneration",
        (_WORDS,),
        (LossTerm("summary_loss", ("logits", "labels"), ("label_smoothing", "loss_style")),),
        "summaries",
        aliases=("summarization", "summarisation", "seq2seq-lm"),
        inputs="summaries",
        decodes=True,
        schedule="rsqrt",
        writes=("ids", "beams", "beam_scores"),
        original=(Original("target", "logits", ("target_ids",), ("loss", "loss_no_smoothing")),),
    ),
    Head(
        "sequence-classification",
        "BigBirdPegasusForSequenceClassification",
        (_scores("batch labels", "classification_head"),),
        (LossTerm("classification_loss", ("logits", "labels"), ("num_labels", "problem_type")),),
        "classes",
        aliases=("classification",),
        inputs="ended",
        unjudged=_NO_HEAD,
    ),
    Head(
        "qa",
        "BigBirdPegasusForQuestionAnswering",
        (
            Tap("start_logits", "batch summary", "qa_outputs", kind="span_logits", scores=True),
            Tap("end_logits", "batch summary", "qa_outputs", kind="span_logits", scores=True),
        ),
        (LossTerm("question_answering_loss", ("start_logits", "end_logits", "start_positions", "end_positions")),),
        "spans",
        aliases=("question-answering",),
        unjudged=_NO_HEAD,
    ),
    Head(
        "causal-lm",
        "BigBirdPegasusForCausalLM",
        (_WORDS,),
        (LossTerm("causal_lm_loss", ("logits", "labels")),),
        "next words",
        aliases=("clm",),
        decodes=True,
        unjudged=_NO_HEAD,
        settings={"is_encoder_decoder": False},
        settings_note="is_encoder_decoder is not set, because the decoder stands alone",
    ),
)
HEADS: dict[str, Head] = {head.name: head for head in _RECORDS}
