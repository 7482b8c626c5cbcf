"""The base model.

The arguments of every model are those of transformers, in its order; every model also takes, by keyword,
``output_taps`` (return named intermediates) and ``generator`` (of the random blocks in training, where random_blocks is
"resample").

Legend: B batch, L length, K keys (cached and new tokens), D hidden, N heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bigbird_port.families.bigbird.config import BigBirdConfig
from models_torch.bigbird.cache import LayerCache
from models_torch.bigbird.embeddings import BigBirdEmbeddings
from models_torch.bigbird.encoder import BigBirdEncoder
from models_torch.bigbird.inputs import Arrays, Inputs, complete_inputs
from models_torch.bigbird.layer import Taps
from models_torch.bigbird.outputs import BigBirdModelOutput
from models_torch.pretrained.model import BigBirdPreTrainedModel

Past = tuple[LayerCache, ...]
Scores = dict[str, Tensor]  # by the output's field


class BigBirdModel(BigBirdPreTrainedModel):
    """Embeddings, encoder and (with ``add_pooling_layer``) pooler; a decoder if the configuration says so."""

    def __init__(self, config: BigBirdConfig, add_pooling_layer: bool = True, *, seed: int | None = 0) -> None:
        super().__init__(config)
        self.embeddings = BigBirdEmbeddings(self.config)
        self.encoder = BigBirdEncoder(self.config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if add_pooling_layer else None
        self._initialise(seed)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Past | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        output_taps: bool = False,
        generator: torch.Generator | None = None,
    ) -> BigBirdModelOutput | Any:
        """Encode ids [B, L], or their word embeddings inputs_embeds [B, L, D].

        attention_mask [B, K]: 1 for tokens, 0 for padding; None takes what differs from pad_token_id, as the original
        (with inputs_embeds: every token). With full attention also [B, L, K]: which query sees which key.
        token_type_ids, position_ids [B, L]: None is 0, and the positions that follow the cached ones.
        head_mask [N] or [layers, N]: factors of the heads. encoder_hidden_states [B, K, D], encoder_attention_mask
        [B, K]: what cross-attention attends to. past_key_values: what an earlier call returned, use_cache: return it
        (None: as configured, but neither with taps, which hold it, nor while checkpointing). output_attentions,
        output_hidden_states, return_dict: None is as configured. return_dict False: return a tuple, as torch.jit.trace
        always gets one. Raises ValueError naming the argument that does not fit.
        """
        x_BLD, inputs, taps = self.embed(
            *(input_ids, attention_mask, token_type_ids, position_ids, head_mask, inputs_embeds),
            *(encoder_hidden_states, encoder_attention_mask, past_key_values),
        )
        if use_cache is None:
            checkpointing = self.encoder.gradient_checkpointing and self.training
            use_cache = self.config.use_cache and not output_taps and not checkpointing
        use_cache = use_cache and self.config.is_decoder
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        asked = (use_cache, bool(output_attentions), output_taps, generator, bool(output_hidden_states))
        encoded = self.encoder(x_BLD, inputs, *asked)
        last_BLD = encoded.hidden_states[-1]
        output = BigBirdModelOutput(
            last_hidden_state=last_BLD,
            pooler_output=self.pool(last_BLD),
            past_key_values=encoded.caches or None,
            hidden_states=encoded.hidden_states if output_hidden_states else None,
            attentions=encoded.attentions or None,
            cross_attentions=encoded.cross_attentions or None,
            taps=taps | encoded.taps if output_taps else None,
        )
        return self._returned(output, return_dict)

    def embed(self, *arrays: Any, **named: Any) -> tuple[Tensor, Inputs, Taps]:
        """Check forward's arrays (inputs.Arrays); return embeddings [B, L, D], what goes with them, and taps."""
        given = Arrays(*arrays, **named)
        inputs = complete_inputs(self.config, given)
        words = given.input_ids, inputs.token_type_ids, inputs.position_ids, given.inputs_embeds
        x_BLD, taps = self.embeddings(*words)
        return x_BLD, inputs, taps

    def pool(self, x_BLD: Tensor) -> Tensor | None:
        """Return the pooled first token of the last hidden state, [B, D]; None without a pooler."""
        return None if self.pooler is None else torch.tanh(self.pooler(x_BLD[:, 0]))

    def score(self, last_BLD: Tensor, pooled_BD: Tensor | None) -> tuple[Scores, Taps]:
        """Return what follows the encoder: the pooled output, if there is one."""
        return ({} if pooled_BD is None else {"pooler_output": pooled_BD}), {}
