"""Names as today's classes spell them: what wrappers of torch and old releases put into them is taken out."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bigbird_port.schema.reading.style import StyleName

# Attributes that torch itself puts between a module and the one it wraps (torch.compile, FSDP, activation
# checkpoints): no model has them.
_WRAPPERS = re.compile(r"(?:(?<=[./])|^)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_OLD = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def respelled(names: Iterable[str], style: StyleName) -> dict[str, str]:
    """Return today's spelling -> own name; raises ValueError where two names become one."""
    found: dict[str, str] = {}
    for own in names:
        name = _respell(own, style)
        if name in found:
            raise ValueError(f"{found[name]} and {own} both mean {name}")
        found[name] = own
    return found


def wrappers_in(name: str) -> list[str]:
    """The attributes of wrappers that a torch name passes through."""
    return _WRAPPERS.findall(name)


def is_old(name: str) -> bool:
    """Whether a torch name is spelled as before PyTorch's own LayerNorm."""
    return name.endswith(tuple(_OLD))


def _respell(name: str, style: StyleName) -> str:
    if style == "flax":  # transformers joins them by dots in safetensors
        return name.replace(".", "/")
    if style != "torch":
        return name
    name = _WRAPPERS.sub("", name)
    old = next((old for old in _OLD if name.endswith(old)), None)
    return name.removesuffix(old) + _OLD[old] if old else name
