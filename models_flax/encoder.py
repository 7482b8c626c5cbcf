"""The encoder: a stack of post-norm layers.

Legend: B batch, L length, D hidden, I inner.
"""

from __future__ import annotations

from flax import linen as nn
from jax import Array

from bigbird_port.config import BigBirdConfig
from bigbird_port.pattern import layer_pattern
from models_flax.activations import ACTIVATIONS
from models_flax.attention import BigBirdAttention, KeyLists, Taps, key_lists


class BigBirdIntermediate(nn.Module):
    """The widening half of the feed-forward sublayer."""

    config: BigBirdConfig

    def setup(self) -> None:
        self.dense = nn.Dense(self.config.intermediate_size)
        self.act = ACTIVATIONS[self.config.hidden_act]

    def __call__(self, x_BLD: Array) -> Array:
        """Return act(dense(x)), [B, L, I]."""
        return self.act(self.dense(x_BLD))


class BigBirdOutput(nn.Module):
    """The narrowing half of the feed-forward sublayer, its residual and LayerNorm."""

    config: BigBirdConfig

    def setup(self) -> None:
        self.dense = nn.Dense(self.config.hidden_size)
        self.LayerNorm = nn.LayerNorm(epsilon=self.config.layer_norm_eps, use_fast_variance=False)
        self.dropout = nn.Dropout(self.config.hidden_dropout_prob)

    def __call__(self, inner_BLI: Array, x_BLD: Array, deterministic: bool) -> Array:
        """Return LayerNorm(x + dropout(dense(inner))), [B, L, D]."""
        return self.LayerNorm(x_BLD + self.dropout(self.dense(inner_BLI), deterministic=deterministic))


class BigBirdLayer(nn.Module):
    """Attention and feed-forward."""

    config: BigBirdConfig

    def setup(self) -> None:
        self.attention = BigBirdAttention(self.config)
        self.intermediate = BigBirdIntermediate(self.config)
        self.output = BigBirdOutput(self.config)

    def __call__(self, x_BLD: Array, mask_BL: Array, lists: KeyLists | None, deterministic: bool) -> tuple[Array, Taps]:
        """Return the layer's output [B, L, D] and its taps."""
        attention_BLD, taps = self.attention(x_BLD, mask_BL, lists, deterministic)
        inner_BLI = self.intermediate(attention_BLD)
        output_BLD = self.output(inner_BLI, attention_BLD, deterministic)
        return output_BLD, taps | {"intermediate": inner_BLI, "output": output_BLD}


class _Layers(nn.Module):
    """The layers under the names "0", "1", ..., as torch's ModuleList names them."""

    config: BigBirdConfig

    @nn.compact
    def __call__(
        self, x_BLD: Array, mask_BL: Array, output_taps: bool, deterministic: bool
    ) -> tuple[tuple[Array, ...], Taps]:
        hidden_states: tuple[Array, ...] = (x_BLD,)
        taps = Taps()
        for i in range(self.config.num_hidden_layers):
            lists = key_lists(layer_pattern(self.config, i, x_BLD.shape[1]))
            x_BLD, layer_taps = BigBirdLayer(self.config, name=str(i))(x_BLD, mask_BL, lists, deterministic)
            hidden_states = (*hidden_states, x_BLD)
            if output_taps:
                taps |= {f"layer.{i}.{name}": tap for name, tap in layer_taps.items()}
        return hidden_states, taps


class BigBirdEncoder(nn.Module):
    """All layers; each has its own random blocks."""

    config: BigBirdConfig

    def setup(self) -> None:
        self.layer = _Layers(self.config)

    def __call__(
        self, x_BLD: Array, mask_BL: Array, output_taps: bool, deterministic: bool
    ) -> tuple[tuple[Array, ...], Taps]:
        """Return the hidden states (input and output of every layer, [B, L, D]) and taps named layer.<i>.<tap>."""
        return self.layer(x_BLD, mask_BL, output_taps, deterministic)
