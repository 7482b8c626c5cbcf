"""The encoder: a stack of post-norm layers.

Legend: B batch, L length, D hidden, I inner.
"""

from __future__ import annotations

from torch import Tensor, nn

from bigbird_port.config import BigBirdConfig
from bigbird_port.pattern import layer_pattern
from models_torch.activations import ACTIVATIONS
from models_torch.attention import BigBirdAttention, KeyLists, Taps, key_lists


class BigBirdIntermediate(nn.Module):
    """The widening half of the feed-forward sublayer."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act = ACTIVATIONS[config.hidden_act]

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Return act(dense(x)), [B, L, I]."""
        return self.act(self.dense(x_BLD))


class BigBirdOutput(nn.Module):
    """The narrowing half of the feed-forward sublayer, its residual and LayerNorm."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, inner_BLI: Tensor, x_BLD: Tensor) -> Tensor:
        """Return LayerNorm(x + dropout(dense(inner))), [B, L, D]."""
        return self.LayerNorm(x_BLD + self.dropout(self.dense(inner_BLI)))


class BigBirdLayer(nn.Module):
    """Attention and feed-forward."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.attention = BigBirdAttention(config)
        self.intermediate = BigBirdIntermediate(config)
        self.output = BigBirdOutput(config)

    def forward(self, x_BLD: Tensor, mask_BL: Tensor, lists: KeyLists | None) -> tuple[Tensor, Taps]:
        """Return the layer's output [B, L, D] and its taps."""
        attention_BLD, taps = self.attention(x_BLD, mask_BL, lists)
        inner_BLI = self.intermediate(attention_BLD)
        output_BLD = self.output(inner_BLI, attention_BLD)
        return output_BLD, taps | {"intermediate": inner_BLI, "output": output_BLD}


class BigBirdEncoder(nn.Module):
    """All layers; each has its own random blocks."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.ModuleList(BigBirdLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x_BLD: Tensor, mask_BL: Tensor, output_taps: bool) -> tuple[tuple[Tensor, ...], Taps]:
        """Return the hidden states (input and output of every layer, [B, L, D]) and taps named layer.<i>.<tap>."""
        hidden_states: tuple[Tensor, ...] = (x_BLD,)
        taps = Taps()
        for i, layer in enumerate(self.layer):
            lists = key_lists(layer_pattern(self.config, i, x_BLD.shape[1]), x_BLD.device)
            x_BLD, layer_taps = layer(x_BLD, mask_BL, lists)
            hidden_states = (*hidden_states, x_BLD)
            if output_taps:
                taps |= {f"layer.{i}.{name}": tap for name, tap in layer_taps.items()}
        return hidden_states, taps
