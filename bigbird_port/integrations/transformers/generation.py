"""What generate asks of a model that writes: its encoder, and the arguments for the next token."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from bigbird_port.integrations.transformers.outputs import CACHE, as_output


class PortedGeneration:
    """The part of a model that GenerationMixin, which must be a base of the model itself, asks for."""

    config: Any
    forward: Any
    model_of_product: Any

    def get_encoder(self, *arguments: Any, **named: Any) -> nn.Module:
        """Return the encoder, with outputs of transformers' kind, where there are two stacks."""
        return PortedEncoder(self.model_of_product.base.encoder)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        **named: Any,
    ) -> dict[str, Any]:
        """Return forward's arguments for the next token: those behind the cached ones, with their positions."""
        past = named.pop(CACHE, None)
        new = input_ids[:, 0 if past is None else past.get_seq_length() :]
        known = inspect.signature(self.forward).parameters.keys() - {"labels", "return_dict", "position_ids"}
        given = {name: value for name, value in named.items() if name in known}
        given |= {CACHE: past, "use_cache": use_cache, "attention_mask": attention_mask}
        if self.config.is_encoder_decoder:
            return given | {"input_ids": None, "decoder_input_ids": new}
        if attention_mask is not None and "position_ids" in inspect.signature(self.forward).parameters:
            given["position_ids"] = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -new.shape[1] :]
        return given | {"input_ids": new}


class PortedEncoder(nn.Module):
    """The encoder of a model of two stacks, as generate calls it."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.train(encoder.training)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Encode ids [B, L], or word embeddings [B, L, D]."""
        asked = bool(output_attentions), bool(output_hidden_states)
        return as_output(self.encoder(input_ids, attention_mask, head_mask, inputs_embeds, *asked))
