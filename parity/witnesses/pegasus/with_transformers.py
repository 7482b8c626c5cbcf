"""transformers' BigBird-Pegasus as a witness: what its users see when they load the same files.

Legend: B batch, L length of the texts, T tokens of the decoder, N heads, H head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bigbird_port.families.family import Step, Tap
from parity.given.inputs import DECODER_IDS, Inputs
from parity.witnesses import with_transformers as base
from parity.witnesses.with_torch import pinned, to_array
from parity.witnesses.witness import Taps

# A tap -> the module of a layer whose output it is, or whose input ("<" before it).
_SUBLAYERS = {
    "intermediate_layer_norm": "final_layer_norm",
    "intermediate": "<fc2",
    "output_dense": "fc2",
    "output": "",
    "self_layer_norm": "self_attn_layer_norm",
}
_ENCODER = _SUBLAYERS | {
    "query": "self_attn.self.query",
    "key": "self_attn.self.key",
    "value": "self_attn.self.value",
    "context": "<self_attn.output",
    "attention_dense": "self_attn.output",
    "attention_output": "<final_layer_norm",
}
_DECODER = _SUBLAYERS | {
    "self_query": "self_attn.q_proj",
    "self_key": "self_attn.k_proj",
    "self_value": "self_attn.v_proj",
    "self_context": "<self_attn.out_proj",
    "self_dense": "self_attn.out_proj",
    "self_output": "<encoder_attn_layer_norm",
    "cross_layer_norm": "encoder_attn_layer_norm",
    "cross_query": "encoder_attn.q_proj",
    "cross_key": "encoder_attn.k_proj",
    "cross_value": "encoder_attn.v_proj",
    "cross_context": "<encoder_attn.out_proj",
    "cross_dense": "encoder_attn.out_proj",
    "cross_output": "<final_layer_norm",
}
_MODULES = {"encoder": _ENCODER, "decoder": _DECODER}


class TransformersWitness(base.TransformersWitness):
    """A transformers model of one head. It has most taps, and runs no layer on another input."""

    def start(self, inputs: Inputs) -> tuple[Taps, Taps]:
        """Run the whole model and return the taps of the first stage; the stream holds all others."""
        import torch

        given = {name: torch.from_numpy(x).long().to(self.device) for name, x in inputs.items()}
        ids = given["input_ids"]
        alone = not self.config.is_encoder_decoder
        if not alone:
            given.setdefault("attention_mask", (ids != self.config.pad_token_id).long())
        lengths = {"encoder": ids.shape[1], "decoder": given.get(DECODER_IDS, ids).shape[1]}
        taps: Taps = {}
        hooks = list(self._listen(taps, lengths, alone))
        try:
            with pinned(), base._quiet():
                output = self.model(**given, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        returned = [tap.name for tap in self.config.family.heads[self.head].taps]
        taps |= {name: to_array(output[name]) for name in returned if output.get(name) is not None}
        return self.step(self.config.family.steps(self.config)[0], taps)

    def step(self, step: Step, stream: Taps) -> tuple[Taps, Taps]:
        """Return the taps of a stage."""
        own = {tap.name.format(i=step.number) for tap in step.stage.taps}
        return {name: stream.pop(name) for name in list(stream) if name in own}, stream

    def _listen(self, taps: Taps, lengths: dict[str, int], alone: bool) -> Iterator[Any]:
        """Register a hook on every module that shows a tap."""
        model = self.model.model if hasattr(self.model, "model") else self.model
        for side in ("encoder", "decoder")[alone:]:
            stack = getattr(model, side)
            first = self._keep(taps, f"{side}.embeddings", side, lengths)
            yield stack.layers[0].register_forward_pre_hook(
                lambda module, given, first=first: first(module, given, given)
            )
            yield stack.layernorm_embedding.register_forward_hook(self._keep(taps, f"{side}.output", side, lengths))
            for i, layer in enumerate(stack.layers):
                for own, path in _MODULES[side].items():
                    name, keep = f"{side}.layer.{i}.{own}", None
                    if alone and own.startswith("cross_"):
                        continue
                    module = layer.get_submodule(path.removeprefix("<"))
                    keep = self._keep(taps, name, side, lengths)
                    if path.startswith("<"):
                        yield module.register_forward_pre_hook(
                            lambda module, given, keep=keep: keep(module, given, given)
                        )
                    else:
                        yield module.register_forward_hook(keep)

    def _keep(self, taps: Taps, name: str, side: str, lengths: dict[str, int]) -> Any:
        place = self.config.family.place(name)
        assert place is not None

        def keep(module: Any, given: Any, output: Any) -> None:
            x = output[0] if isinstance(output, tuple) else output
            if name not in taps:
                taps[name] = self._in_shape(place.tap, x, lengths)

        return keep

    def _in_shape(self, tap: Tap, x: Any, lengths: dict[str, int]) -> np.ndarray:
        """A tap in this project's shape, without the padding to whole blocks."""
        axis = "length" if tap.has("length") else "summary"
        x_BLD = to_array(x.detach())
        x_BLD = x_BLD.reshape(len(x_BLD), x_BLD.shape[1], -1)[
            :, : lengths["encoder" if axis == "length" else "decoder"]
        ]
        if not tap.has("heads"):
            return x_BLD
        split = x_BLD.reshape(*x_BLD.shape[:2], self.config.num_attention_heads, self.config.head_dim)
        return np.moveaxis(split, 1, tap.names.index(axis))


def settings_of(config: Any) -> dict[str, Any]:
    """Return transformers' settings of a model; raises ValueError for what its class cannot represent."""
    if config.norm_type != "prenorm" or config.couple_encoder_decoder:
        raise ValueError(
            "transformers' BigBird-Pegasus has neither norm_type postnorm nor couple_encoder_decoder: leave "
            "transformers out of --against"
        )
    return config.to_dict() | {"use_cache": False}
