"""Word, token type and position embeddings.

Legend: B batch, L length, D hidden.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from bigbird_port.families.bigbird.config import BigBirdConfig
from models_torch.bigbird.layer import Taps, norm_where


class BigBirdEmbeddings(nn.Module):
    """The sum of three embeddings, then in postnorm LayerNorm (which in the original belongs to the encoder)."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = norm_where("postnorm", config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids_BL: Tensor | None,
        token_type_ids_BL: Tensor,
        position_ids_BL: Tensor,
        inputs_embeds_BLD: Tensor | None = None,
    ) -> tuple[Tensor, Taps]:
        """Return the embeddings [B, L, D] and the taps embeddings_prenorm and embeddings; dropout precedes the norm.

        inputs_embeds_BLD: word embeddings (not rescaled) in place of ids.
        """
        words_BLD = self.word_embeddings(input_ids_BL) if inputs_embeds_BLD is None else inputs_embeds_BLD
        if self.config.rescale_embeddings:
            words_BLD = words_BLD * math.sqrt(self.config.hidden_size)
        types_BLD = self.token_type_embeddings(token_type_ids_BL)
        positions_BLD = self.position_embeddings(position_ids_BL)
        prenorm_BLD = words_BLD + types_BLD + positions_BLD
        x_BLD = self.LayerNorm(self.dropout(prenorm_BLD))
        return x_BLD, {"embeddings_prenorm": prenorm_BLD, "embeddings": x_BLD}
