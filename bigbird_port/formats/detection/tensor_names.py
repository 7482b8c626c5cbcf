"""What is no whole BigBird model, told by the names of its tensors: adapters, quantised weights, other models.

One table. A pattern is searched for in lines of "name dtype", in which the names' parts are parted by dots
and every digit is 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bigbird_port.formats.store import Stored

_MERGE = (
    "merge it into its model first: peft.PeftModel.from_pretrained(MODEL, ADAPTER).merge_and_unload()"
    ".save_pretrained(FOLDER), and convert FOLDER"
)
_UNQUANTISED = "give the model that it was made from, in float32, bfloat16 or float16"
_BIGBIRD = "BigBird's and BigBird-Pegasus' weights alone are converted"
_NO_HEAD = "there is no head for it here"
_BODY = r"embeddings\.word_embeddings"
_FAMILIES = (
    "roberta|xlm_roberta|electra|distilbert|deberta|longformer|mpnet|mobilebert|funnel|convbert|ernie|layoutlm|"
    "nezha|reformer|led|nystromformer|xlnet|squeezebert|camembert|rembert|roformer|perceiver|fnet|yoso|luke"
)


@dataclass(frozen=True)
class NamedKind:
    """What a set of tensors is. pattern: found among their lines; beside: found there too; without: found nowhere.

    styles: in which of the styles of names (None: in all). of: the model_type of ours that looks like it in part.
    """

    found: str
    next_step: str
    pattern: str
    beside: str = ""
    without: str = ""
    styles: tuple[str, ...] | None = None
    of: str = ""


_DIGIT = re.compile(r"\d")
_LORA = r"\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)\b"
NAMED_KINDS: tuple[NamedKind, ...] = (
    NamedKind(
        "LoRA matrices that are not merged into the weights",
        "merge them first: model = model.merge_and_unload(); model.save_pretrained(FOLDER); and convert FOLDER",
        _LORA,
        beside=_BODY,
    ),
    NamedKind("a LoRA adapter, which is no model", _MERGE, _LORA),
    NamedKind(
        "an adapter of peft (IA3 or prompts), which is no model",
        _MERGE,
        r"\.ia\d_l\b|(^|\.)prompt_embeddings |(^|\.)prompt_encoder\.",
        without=_BODY,
    ),
    NamedKind(
        "adapter modules between the layers",
        "their function is another than BigBird's; give the model without them",
        r"\.ia\d_l\b|\.adapters?\.[^ ]*(down|up)|\.adapter_(down|up)",
    ),
    NamedKind(
        "weights that bitsandbytes quantised",
        _UNQUANTISED,
        r"\.(SCB|weight_format|(nested_)?absmax|(nested_)?quant_map) |\.quant_state\.",
    ),
    NamedKind("weights quantised by GPTQ", _UNQUANTISED, r"\.qweight ", beside=r"\.g_idx "),
    NamedKind("weights quantised by AWQ or GPTQ", _UNQUANTISED, r"\.qweight |\.qzeros "),
    NamedKind("quantised weights", _UNQUANTISED, r"\._packed_params|\.weight_packed |\.zero_point |\.W_q "),
    NamedKind("quantised weights (of 8-bit floating point)", _UNQUANTISED, r"F0_E0M0|float0_e0m0"),
    NamedKind("quantised weights (of 8-bit integers)", _UNQUANTISED, r"\.(weight|kernel|weights) u?int8$"),
    # Other models. Those of several parts come first, because their parts are named as other models are.
    NamedKind(
        "T5's variables, an encoder with a decoder",
        _NO_HEAD,
        r"(^|\.)block_\d{3}\.|(^|\.)(encoder|decoder)\.block\.\d+\.",
    ),
    NamedKind("Pegasus' variables, an encoder with a decoder", _NO_HEAD, r"\.memory_attention\."),
    NamedKind(
        "an encoder-decoder of two models",
        f"{_NO_HEAD}; where its encoder is a BigBird model, save that alone: model.encoder.save_pretrained(FOLDER)",
        r"(^|\.)decoder\..*\.crossattention\.",
    ),
    NamedKind(
        "an encoder and a decoder (as of BART or Pegasus)",
        _NO_HEAD,
        r"(^|\.)(encoder|decoder)\.layers\.\d+\.",
        without=r"(^|\.)encoder\.layers\.\d+\.self_attn\.self\.query\.",  # BigBird-Pegasus
        of="bigbird_pegasus",
    ),
    NamedKind(
        "a decoder such as Llama's",
        _BIGBIRD,
        r"(^|\.)layers\.\d+\.(self_attn|mlp)\.",
        without=r"\.self_attn\.self\.",
        of="bigbird_pegasus",
    ),
    NamedKind("a decoder such as GPT-2's", _BIGBIRD, r"(^|\.)(h\.\d+|h\d+)\.(attn|mlp|ln_1)\."),
    NamedKind("ALBERT's weights", _BIGBIRD, r"(^|\.)albert\.|\.embedding_hidden_mapping_in\.|\.inner_group_\d+\."),
    NamedKind(
        "weights of another model ({})",
        _BIGBIRD,
        rf"(^|\.)(?P<family>{_FAMILIES})\.",
        without=r"\.encoder\.LayerNorm\.",  # the original's own mark: its scope can be called anything
    ),
    NamedKind("BERT's weights", _BIGBIRD, r"(^|\.)pooler\.dense\.(weight|kernel) ", styles=("torch", "flax")),
    NamedKind(
        "BERT's variables",
        _BIGBIRD,
        r"\.embeddings\.LayerNorm\.",
        without=r"\.encoder\.LayerNorm\.",
        styles=("original",),
    ),
)


def check_tensor_names(tensors: Mapping[str, Stored], style: str, model_type: str = "") -> None:
    """Raise ValueError, saying what it is, if a source is no whole model of ours in floating point.

    model_type: what its configuration says, if anything: a decoder alone has no names of its own.
    """
    first: dict[str, str] = {}  # a line -> the first name of it: layers differ in their numbers alone
    for name, stored in tensors.items():
        line = f"{_DIGIT.sub('0', name).replace('/', '.')} {_type(stored)}"
        first.setdefault(line, name)
    lines = "\n".join(first)
    for kind in NAMED_KINDS:
        if (kind.styles and style not in kind.styles) or (kind.of and kind.of == model_type):
            continue
        found = re.search(kind.pattern, lines, re.MULTILINE)
        if not found or (kind.without and re.search(kind.without, lines, re.MULTILINE)):
            continue
        if kind.beside and not re.search(kind.beside, lines, re.MULTILINE):
            continue
        name = list(first.values())[lines.count("\n", 0, found.start() + 1)]
        what = kind.found.format(*found.groupdict().values())
        raise ValueError(f"expected a BigBird model, found {what}, such as {name[:120]}: {kind.next_step}")


def _type(stored: Stored) -> str:
    return str(stored.dtype) if stored.dtype else _DIGIT.sub("0", stored.type_name)
