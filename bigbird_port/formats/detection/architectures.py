"""Whose a configuration is, by the model_type of their config.json: named as what they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BIGBIRD = "big_bird"
OURS = {BIGBIRD: "BigBird", "bigbird_pegasus": "BigBird-Pegasus"}
_SEQ2SEQ = "an encoder with a decoder; there is no head for it here"
# model_type -> what it is.
FAMILIES = {
    "albert": "ALBERT",
    "bart": f"BART, {_SEQ2SEQ}",
    "bert": "BERT",
    "camembert": "CamemBERT",
    "deberta": "DeBERTa",
    "deberta-v2": "DeBERTa",
    "distilbert": "DistilBERT",
    "electra": "ELECTRA",
    "encoder-decoder": "two models in one, an encoder and a decoder; there is no head for it here",
    "gpt2": "GPT-2",
    "led": f"LED, {_SEQ2SEQ}",
    "llama": "Llama",
    "longformer": "Longformer",
    "longt5": f"LongT5, {_SEQ2SEQ}",
    "nystromformer": "Nystromformer",
    "pegasus": f"Pegasus, {_SEQ2SEQ}",
    "reformer": "Reformer",
    "roberta": "RoBERTa",
    "t5": f"T5, {_SEQ2SEQ}",
    "xlm-roberta": "XLM-RoBERTa",
    "xlnet": "XLNet",
}
_SPELT = {"bigbird": BIGBIRD, "big-bird": BIGBIRD, "BigBird": BIGBIRD, "bigbird-pegasus": "bigbird_pegasus"}


def check_model_type(values: Mapping[str, Any], wanted: str | None = None) -> None:
    """Raise ValueError, naming whose configuration this is, if model_type is not ``wanted``; None: none of ours."""
    found = values.get("model_type", wanted or BIGBIRD)
    known = isinstance(found, str) and found in OURS
    if known and wanted in (None, found):
        return
    if known and wanted:
        raise ValueError(
            f"config: model_type is {found!r}: this is the configuration of a {OURS[found]} model, expected one of a "
            f"{OURS[wanted]} model ({wanted!r}): take the classes of {OURS[found]}"
        )
    if isinstance(found, str) and found in _SPELT:
        right = _SPELT[found]
        raise ValueError(f"config: model_type is {found!r}, but {OURS[right]}'s is spelt {right!r}: correct it")
    ours = " and ".join(map(repr, OURS))
    family = FAMILIES.get(found) if isinstance(found, str) else None
    raise ValueError(
        f"config: model_type {str(found)[:80]!r} is another architecture{f' ({family})' if family else ''}: this is "
        f"the configuration of another model, and {ours} alone are converted{_next_step(values)}"
    )


def _next_step(values: Mapping[str, Any]) -> str:
    encoder = values.get("encoder")
    if isinstance(encoder, Mapping) and encoder.get("model_type") == BIGBIRD:
        return "; its encoder is a BigBird model: save that alone, by model.encoder.save_pretrained(FOLDER)"
    return ""
