"""Other models, by the model_type of their config.json: named as what they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OURS = "big_bird"
_SEQ2SEQ = "an encoder with a decoder; there is no head for it here"
# model_type -> what it is.
FAMILIES = {
    "albert": "ALBERT",
    "bart": f"BART, {_SEQ2SEQ}",
    "bert": "BERT",
    "bigbird_pegasus": f"BigBird-Pegasus, {_SEQ2SEQ}",
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
_SPELT = {"bigbird", "big-bird", "BigBird"}


def check_model_type(values: Mapping[str, Any]) -> None:
    """Raise ValueError, naming whose configuration this is, if model_type is not BigBird's."""
    found = values.get("model_type", OURS)
    if found == OURS:
        return
    if isinstance(found, str) and found in _SPELT:
        raise ValueError(f"config: model_type is {found!r}, but BigBird's is spelt {OURS!r}: correct it")
    family = FAMILIES.get(found) if isinstance(found, str) else None
    raise ValueError(
        f"config: model_type {str(found)[:80]!r} is another architecture{f' ({family})' if family else ''}: this is "
        f"the configuration of another model, and {OURS!r} alone is converted{_next_step(values)}"
    )


def _next_step(values: Mapping[str, Any]) -> str:
    encoder = values.get("encoder")
    if isinstance(encoder, Mapping) and encoder.get("model_type") == OURS:
        return "; its encoder is a BigBird model: save that alone, by model.encoder.save_pretrained(FOLDER)"
    return ""
