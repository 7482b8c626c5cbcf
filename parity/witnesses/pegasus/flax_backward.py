"""Gradients of the Flax twin of BigBird-Pegasus: of a parameter by jax.grad, of a tap by that of a zero added to it.

Legend: B batch, L length of the texts, T tokens of the decoder, D hidden.
"""

from __future__ import annotations

import functools
from typing import Any

from parity.measure.losses import total_loss
from parity.witnesses import with_flax as base


@functools.lru_cache(maxsize=64)
def compiled_gradient(module: Any, head: str) -> Any:
    """The loss and its gradients by parameters and by what is added to taps."""
    import jax
    from flax import linen as nn

    def loss(params: Any, zeros: Any, arrays: Any, labels: Any) -> Any:
        from models_flax import losses

        with nn.intercept_methods(functools.partial(_intercept, zeros)):
            output = module.apply({"params": params}, **arrays, output_taps=True)
        own = module.config.family.heads[head]
        scores = {name: output[name] + zeros[name] for name in own.returned}
        return total_loss(losses, module.config, head, scores, labels)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), compiler_options=base.quickly(module.config))


_PROJECTIONS = (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "dense"))
# of a module of a side, or of one attention of the decoder: what its output is, by its name
_OUTPUTS: dict[str, dict[str, str]] = {
    "encoder": {"query": "query", "key": "key", "value": "value", "output": "attention_dense", "fc2": "output_dense"},
    "decoder": {"fc2": "output_dense"},
    "self_attn": {name: f"self_{part}" for name, part in _PROJECTIONS},
    "encoder_attn": {name: f"cross_{part}" for name, part in _PROJECTIONS},
}
_INPUTS = {"output": "context", "fc2": "intermediate"}
_ENCODERS = ("self_layer_norm", "attention_output")
# what enters and leaves the sublayer of a LayerNorm, on each side
_OF_SUBLAYERS: dict[str, dict[str, tuple[str, str]]] = {
    "self_attn_layer_norm": {"encoder": _ENCODERS, "decoder": ("self_layer_norm", "self_output")},
    "encoder_attn_layer_norm": {"decoder": ("cross_layer_norm", "cross_output")},
    "final_layer_norm": dict.fromkeys(("encoder", "decoder"), ("intermediate_layer_norm", "output")),
}


def _intercept(zeros: dict[str, Any], call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
    """Call a method with zeros added to what it is given or returns, where that is a tap."""
    path, method = context.module.path, context.method_name
    side = next((name for name in ("encoder", "decoder") if name in path), None)
    if side is None:
        return call(*arguments, **keywords)
    if path[-1] == side and method == "__call__":
        output = call(_added(zeros, f"{side}.embeddings", arguments[0]), *arguments[1:], **keywords)
        return output.replace(last_hidden_state=_added(zeros, f"{side}.output", output.last_hidden_state))
    if path[-1] == "layernorm_embedding" and method == "__call__":
        return _added(zeros, f"{side}.embeddings_layer_norm", call(*arguments, **keywords))
    if "layers" not in path or path[-1] == "layers":
        return call(*arguments, **keywords)
    layer, own = f"{side}.layer.{path[path.index('layers') + 1]}", path[path.index("layers") + 2 :]
    if not own:
        output = call(*arguments, **keywords)
        which = {"enter": 0, "leave": 1}.get(method)
        return output if which is None else _added(zeros, f"{layer}.{_left(arguments[0], side, which)}", output)
    if method != "__call__":
        return call(*arguments, **keywords)
    before = {"encoder_attn": "cross_", "self_attn": "self_"}.get(own[0], "") if own[-1] == "out_proj" else ""
    given = f"{before}context" if own[-1] == "out_proj" else _INPUTS.get(own[-1], "")
    if given:
        arguments = (_added(zeros, f"{layer}.{given}", arguments[0]), *arguments[1:])
    outputs = _OUTPUTS[side if side == "encoder" or len(own) == 1 else own[0]]
    return _added(zeros, f"{layer}.{outputs.get(own[-1], '')}", call(*arguments, **keywords))


def _left(norm: Any, side: str, which: int) -> str:
    """What enters or leaves the sublayer of a LayerNorm."""
    return _OF_SUBLAYERS[norm.name][side][which]


def _added(zeros: dict[str, Any], name: str, x: Any) -> Any:
    """An array with a tap's zero added, whose heads may stand apart."""
    if name not in zeros:
        return x
    zero = zeros[name]
    if zero.ndim == 4 and zero.shape[:2] != x.shape[:2]:  # [B, N, L, H]
        zero = zero.swapaxes(1, 2)
    return x + zero.reshape(x.shape)
