"""Gradients of the Flax twin: of a parameter by jax.grad, of a tap by that of a zero added to it.

Legend: B batch, L length, N heads, H head size, D hidden.
"""

from __future__ import annotations

import functools
from typing import Any

from bigbird_port.families.family import Family
from parity.measure.losses import total_loss


def loss_with_zeros(module: Any, head: str, zeros: dict[str, Any], arrays: Any, labels: Any) -> Any:
    """Return the loss of a module bound to its parameters, every tap with its entry of ``zeros`` added.

    arrays: the base model's, beside: what the head wants, as one pair.
    """
    from flax import linen as nn

    def intercept(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        if context.method_name != "__call__":
            return call(*arguments, **keywords)
        path = context.module.path
        if path[-2:] == ("embeddings", "LayerNorm"):
            arguments = (arguments[0] + zeros["embeddings_prenorm"], *arguments[1:])
        output = call(*arguments, **keywords)
        tap = _tap_of(path, module.config.family)
        return output if tap is None or tap not in zeros else _added(output, zeros[tap])

    given, beside = arrays
    base = getattr(module, "bert", module)
    with nn.intercept_methods(intercept):
        x_BLD, inputs, _ = base.embed(**given)
        if module.config.norm_type == "prenorm":  # no LayerNorm is between these taps
            x_BLD = x_BLD + zeros["embeddings_prenorm"] + zeros["embeddings"]
        # asked for its taps, the encoder runs layers that are not compiled by themselves: those would keep a zero
        last_BLD = base.encoder(x_BLD, inputs, output_taps=True).hidden_states[-1]
        pooled_BD = base.pool(last_BLD)
        if pooled_BD is not None and "pooler_output" in zeros:
            pooled_BD = pooled_BD + zeros["pooler_output"]
        scores, _ = module.score(last_BLD, pooled_BD, **beside)
    scores = {name: x + zeros[name] for name, x in scores.items()}
    return _loss(module.config, head, scores, labels)


def _loss(config: Any, head: str, scores: Any, labels: Any) -> Any:
    from models_flax import losses

    return total_loss(losses, config, head, scores, labels)


def _tap_of(path: tuple[str, ...], family: Family) -> str | None:
    """The tap that is the output of the module with this path."""
    in_layer, outside = _by_path(family)
    if "layer" in path:
        i = path.index("layer") + 1
        tap = in_layer.get(path[i + 1 :])
        return None if tap is None else tap.format(i=path[i])
    return next((outside[path[-n:]] for n in (2, 1) if path[-n:] in outside and n <= len(path)), None)


@functools.cache
def _by_path(family: Family) -> tuple[dict[tuple[str, ...], str], dict[tuple[str, ...], str]]:
    """The end of a module's path -> the tap that is its output; in a layer, and outside."""
    in_layer = {tuple(tap.flax.split("/")): tap.name for tap in family.layer}
    return in_layer, {tuple(tap.flax.split("/")): tap.name for tap in family.outside if tap.flax}


def _added(output: Any, zero: Any) -> Any:
    """A module's output with a tap's zero added, whose heads may stand apart."""
    if isinstance(output, tuple):  # the context, and taps
        return (_added(output[0], zero), *output[1:])
    if zero.ndim == 4 and zero.shape[:2] != output.shape[:2]:  # [B, N, L, H]
        zero = zero.swapaxes(1, 2)
    return output + zero.reshape(output.shape)
