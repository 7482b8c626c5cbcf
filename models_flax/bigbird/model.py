"""The base model, a linen module.

``output_taps`` returns named intermediates.

Legend: B batch, L length, K keys (those of the encoder, or those a mask covers), D hidden, N heads.
"""

from __future__ import annotations

from typing import Any

from flax import linen as nn
from jax import Array
from jax import numpy as jnp
from jax.typing import DTypeLike

from bigbird_port.families.bigbird.config import BigBirdConfig
from models_flax.bigbird.cache import LayerCache
from models_flax.bigbird.embeddings import BigBirdEmbeddings
from models_flax.bigbird.encoder import BigBirdEncoder
from models_flax.bigbird.inputs import Arrays, Inputs, complete_inputs
from models_flax.bigbird.layer import Taps
from models_flax.bigbird.outputs import BigBirdModelOutput

Past = tuple[LayerCache, ...]
Scores = dict[str, Array]  # by the output's field


class FlaxBigBirdModule(nn.Module):
    """Embeddings, encoder and (with ``add_pooling_layer``) pooler; a decoder if the configuration says so.

    dtype: of the computation; parameters stay float32. gradient_checkpointing: keep the layers' inputs only, and
    compute the rest again for the gradient. skip_padding: leave out blocks that are nothing but padding, where
    attention is block-sparse and the mask is known before anything is compiled (no argument of a jitted function).
    """

    config: BigBirdConfig
    add_pooling_layer: bool = True
    dtype: DTypeLike = jnp.float32
    gradient_checkpointing: bool = False
    skip_padding: bool = True

    def setup(self) -> None:
        self.embeddings = BigBirdEmbeddings(self.config, self.dtype)
        self.encoder = BigBirdEncoder(self.config, self.dtype, self.gradient_checkpointing, self.skip_padding)
        self.pooler = nn.Dense(self.config.hidden_size, dtype=self.dtype) if self.add_pooling_layer else None

    def __call__(
        self,
        input_ids: Array,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        head_mask: Array | None = None,
        encoder_hidden_states: Array | None = None,
        encoder_attention_mask: Array | None = None,
        past_key_values: Past | None = None,
        deterministic: bool = True,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        output_taps: bool = False,
    ) -> BigBirdModelOutput:
        """Encode ids [B, L].

        attention_mask [B, L]: 1 for tokens, 0 for padding; None takes what differs from pad_token_id, as the original.
        With a cache also [B, max_length], for all its places; with full attention also [B, L, K]: which query sees
        which key. token_type_ids, position_ids [B, L]: None is 0, and the positions that follow the cached ones.
        head_mask [N] or [layers, N]: factors of the heads. encoder_hidden_states [B, K, D], encoder_attention_mask
        [B, K]: what cross-attention attends to. past_key_values: init_cache's, or what an earlier call returned.
        deterministic: without dropout. Raises ValueError naming the argument that does not fit.
        """
        x_BLD, inputs, taps = self.embed(
            *(input_ids, attention_mask, token_type_ids, position_ids, head_mask),
            *(encoder_hidden_states, encoder_attention_mask, past_key_values),
            deterministic=deterministic,
        )
        use_cache = past_key_values is not None
        flags = (use_cache, output_attentions, output_taps, deterministic, output_hidden_states)
        encoded = self.encoder(x_BLD, inputs, *flags)
        last_BLD = encoded.hidden_states[-1]
        return BigBirdModelOutput(
            last_hidden_state=last_BLD,
            pooler_output=self.pool(last_BLD),
            past_key_values=encoded.caches or None,
            hidden_states=encoded.hidden_states if output_hidden_states else None,
            attentions=encoded.attentions or None,
            cross_attentions=encoded.cross_attentions or None,
            taps=taps | encoded.taps if output_taps else None,
        )

    def embed(self, *arrays: Any, deterministic: bool = True, **named: Any) -> tuple[Array, Inputs, Taps]:
        """Check the call's arrays (inputs.Arrays); return embeddings [B, L, D], what goes with them, and taps."""
        given = Arrays(*arrays, **named)
        inputs = complete_inputs(self.config, given)
        words = given.input_ids, inputs.token_type_ids, inputs.position_ids
        x_BLD, taps = self.embeddings(*words, deterministic)
        return x_BLD, inputs, taps

    def pool(self, x_BLD: Array) -> Array | None:
        """Return the pooled first token of the last hidden state, [B, D]; None without a pooler."""
        return None if self.pooler is None else jnp.tanh(self.pooler(x_BLD[:, 0]))

    def score(self, last_BLD: Array, pooled_BD: Any, deterministic: bool = True) -> tuple[Scores, Taps]:
        """Return what follows the encoder: the pooled output, if there is one."""
        return ({} if pooled_BD is None else {"pooler_output": pooled_BD}), {}
