"""Word, token type and position embeddings.

Legend: B batch, L length, D hidden.
"""

from __future__ import annotations

import math

from flax import linen as nn
from jax import Array
from jax import numpy as jnp
from jax.typing import DTypeLike

from bigbird_port.families.bigbird.config import BigBirdConfig
from models_flax.bigbird.layer import Taps, norm_where
from models_flax.embed import Embed


class BigBirdEmbeddings(nn.Module):
    """The sum of three embeddings, then in postnorm LayerNorm (which in the original belongs to the encoder)."""

    config: BigBirdConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.word_embeddings = Embed(self.config.vocab_size, self.config.hidden_size, dtype=self.dtype)
        self.position_embeddings = Embed(self.config.max_position_embeddings, self.config.hidden_size, dtype=self.dtype)
        self.token_type_embeddings = Embed(self.config.type_vocab_size, self.config.hidden_size, dtype=self.dtype)
        self.LayerNorm = norm_where("postnorm", self.config, self.dtype)
        self.dropout = nn.Dropout(self.config.hidden_dropout_prob)

    def __call__(
        self, input_ids_BL: Array, token_type_ids_BL: Array, position_ids_BL: Array, deterministic: bool
    ) -> tuple[Array, Taps]:
        """Return the embeddings [B, L, D] and the taps embeddings_prenorm and embeddings; dropout precedes the norm."""
        words_BLD = self.word_embeddings(input_ids_BL)
        if self.config.rescale_embeddings:
            words_BLD = words_BLD * math.sqrt(self.config.hidden_size)
        types_BLD = self.token_type_embeddings(token_type_ids_BL)
        positions_BLD = self.position_embeddings(position_ids_BL)
        prenorm_BLD = words_BLD + types_BLD + positions_BLD
        x_BLD = self.LayerNorm(self.dropout(prenorm_BLD, deterministic=deterministic))
        return x_BLD, {"embeddings_prenorm": prenorm_BLD, "embeddings": x_BLD}
