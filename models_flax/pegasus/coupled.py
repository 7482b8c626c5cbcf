"""Coupled models: the decoder's parameters are the encoder's own. torch shares its modules instead.

Parameters hold each once; the base module finds them in both places, so that a gradient is the sum of both uses.
"""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from bigbird_port.families.pegasus.config import BigBirdPegasusConfig
from models_flax.pegasus.model import FlaxBigBirdPegasusModule

# what a layer of the decoder is called -> what the layer of the encoder is called whose it is
_SAME = {
    ("self_attn", "q_proj"): ("self_attn", "self", "query"),
    ("self_attn", "k_proj"): ("self_attn", "self", "key"),
    ("self_attn", "v_proj"): ("self_attn", "self", "value"),
    ("self_attn", "out_proj"): ("self_attn", "output"),
    ("self_attn_layer_norm",): ("self_attn_layer_norm",),
    ("fc1",): ("fc1",),
    ("fc2",): ("fc2",),
    ("final_layer_norm",): ("final_layer_norm",),
}


def expanded(variables: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a coupled model with the encoder's in the places of the decoder that share them."""
    if "encoder" not in variables.get("params", {}):
        return variables  # before there are any
    params = variables["params"]
    decoder = {"layernorm_embedding": params["encoder"]["layernorm_embedding"], "layers": {}}
    for number, own in params["decoder"]["layers"].items():
        layer: dict[str, Any] = {**own, "self_attn": {}}
        for names, theirs in _SAME.items():
            found = params["encoder"]["layers"][number]
            for name in theirs:
                found = found[name]
            target = layer if len(names) == 1 else layer[names[0]]
            target[names[-1]] = found
        decoder["layers"][number] = layer
    return {**variables, "params": {**params, "decoder": decoder}}


def contracted(variables: dict[str, Any]) -> dict[str, Any]:
    """The reverse: without what the decoder shares."""
    if "decoder" not in variables.get("params", {}):
        return variables
    params = variables["params"]
    shared = {names[0] for names in _SAME}
    layers = {
        number: {name: part for name, part in layer.items() if name not in shared}
        for number, layer in params["decoder"]["layers"].items()
    }
    return {**variables, "params": {**params, "decoder": {"layers": layers}}}


_Coupled: Any = nn.map_variables(
    FlaxBigBirdPegasusModule,
    "params",
    trans_in_fn=expanded,
    trans_out_fn=contracted,
    init=True,
    methods=["__call__", "encode", "decode", "logits"],
)


def make_module(config: BigBirdPegasusConfig, *arguments: Any, **named: Any) -> Any:
    """The base module; in a coupled model the decoder's parameters are the encoder's own."""
    kind = _Coupled if config.couple_encoder_decoder else FlaxBigBirdPegasusModule
    return kind(config, *arguments, **named)
