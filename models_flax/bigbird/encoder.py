"""The encoder: a stack of layers.

Legend: B batch, L length, K keys, D hidden, N heads, I inner, W block size, P blocks of the packed row.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax import Array
from jax import numpy as jnp
from jax.typing import DTypeLike

from bigbird_port.families.configuration import Attending
from bigbird_port.sparse.packing import Packing, packed_pattern
from bigbird_port.sparse.pattern import Pattern, fold_repeats, layer_pattern, pattern_blocks
from bigbird_port.sparse.static_lists import round_up, static_lists
from models_flax.attention.block_sparse import Lists
from models_flax.attention.lists import KeyLists, key_lists
from models_flax.attention.probabilities import dense_probabilities
from models_flax.attention.sequence import spread_lists
from models_flax.bigbird.cache import LayerCache
from models_flax.bigbird.inputs import Inputs
from models_flax.bigbird.layer import BigBirdLayer, Taps, norm_where
from models_flax.kinds import LayerKinds, layer_kinds
from models_flax.sharding import current_mesh

Arrays = tuple[Array, ...]


class Encoded(NamedTuple):
    """Input and output of every layer [B, L, D], and what was asked for; taps are named layer.<i>.<tap>."""

    hidden_states: Arrays
    caches: tuple[LayerCache, ...]
    attentions: Arrays
    cross_attentions: Arrays
    taps: Taps


class _Layers(nn.Module):
    """The layers under the names "0", "1", ..., as torch's ModuleList names them."""

    config: Attending
    dtype: DTypeLike
    gradient_checkpointing: bool
    kinds: LayerKinds

    @nn.compact
    def __call__(
        self,
        x_BLD: Array,
        inputs: Inputs,
        length: int,
        use_cache: bool,
        output_attentions: bool,
        output_taps: bool,
        deterministic: bool,
        output_hidden_states: bool,
    ) -> Encoded:
        keep_taps = use_cache or output_attentions or output_taps
        whole = keep_taps or current_mesh() is not None  # XLA partitions the tokens of a mesh, all at once
        kinds = self.kinds
        layer_class = kinds.checkpointed if self.gradient_checkpointing else kinds.plain if whole else kinds.compiled
        encoded = Encoded((x_BLD,), (), (), (), Taps())
        for i in range(self.config.num_hidden_layers):
            lists = self._lists(i, length, inputs.packing, deterministic)
            head_mask_N = None if inputs.head_mask is None else inputs.head_mask[i]
            past = None if inputs.past is None else inputs.past[i]
            layer = layer_class(self.config, self.dtype, name=str(i))
            output_BLD, taps = layer(
                encoded.hidden_states[-1],
                inputs.mask,
                lists,
                head_mask_N,
                past,
                inputs.encoder_states,
                inputs.encoder_mask,
                deterministic,
            )
            encoded = Encoded(
                (*encoded.hidden_states, output_BLD) if output_hidden_states else (output_BLD,),
                (*encoded.caches, _extended(past, taps)) if use_cache and past is not None else (),
                (*encoded.attentions, self._attentions(taps, inputs, lists, head_mask_N)) if output_attentions else (),
                (*encoded.cross_attentions, self._cross_attentions(taps, inputs, head_mask_N))
                if output_attentions and inputs.encoder_states is not None
                else (),
                encoded.taps | ({f"layer.{i}.{name}": tap for name, tap in taps.items()} if output_taps else {}),
            )
        return encoded

    def _lists(self, i: int, length: int, packing: Packing | None, deterministic: bool) -> Lists | None:
        """Layer i's key lists; in training, random_blocks="resample" draws them anew."""
        lists = encoder_lists(self.config, i, length, packing)
        if lists is None or deterministic or self.config.random_blocks != "resample":
            return lists
        if not isinstance(lists, KeyLists):
            raise ValueError(
                'random_blocks is "resample", which draws new random blocks in every step. On a mesh the blocks that '
                "devices exchange are fixed when the program is compiled. "
                'Set random_blocks="original", or train without a mesh'
            )
        if not self.has_rng("indices"):
            raise ValueError(
                'random_blocks is "resample", so training draws new random blocks, but no generator was given: '
                "pass indices_rng=jax.random.key(seed), another one at every step"
            )
        return _redrawn_lists(self.config, self.make_rng("indices"), length, packing)

    def _attentions(self, taps: Taps, inputs: Inputs, lists: Lists | None, head_mask_N: Array | None) -> Array:
        """The probabilities [B, N, L, K] of a layer's self-attention."""
        attentions = dense_probabilities(
            taps["query"], taps["key"], inputs.mask, lists, self.config.block_size, self.config.is_decoder
        )
        return _masked_heads(attentions, head_mask_N)

    def _cross_attentions(self, taps: Taps, inputs: Inputs, head_mask_N: Array | None) -> Array:
        """The probabilities [B, N, L, K] of a layer's cross-attention."""
        assert inputs.encoder_mask is not None
        query, key = taps["cross_query"], taps["cross_key"]
        attentions = dense_probabilities(query, key, inputs.encoder_mask, None, self.config.block_size)
        return _masked_heads(attentions, head_mask_N)


@functools.cache  # said once
def _say_full_attention() -> None:
    warnings.warn(
        "block-sparse attention looks ahead, which a decoder must not: full attention runs instead "
        "(attention_type='original_full' in the configuration says so)",
        stacklevel=2,
    )


def _masked_heads(attentions: Array, head_mask_N: Array | None) -> Array:
    return attentions if head_mask_N is None else attentions * head_mask_N[:, None, None].astype(attentions.dtype)


def _extended(past: LayerCache, taps: Taps) -> LayerCache:
    """The cache with what a layer computed in it."""
    return LayerCache(
        taps["key"],
        taps["value"],
        taps.get("cross_key"),
        taps.get("cross_value"),
        past.mask,
        past.filled + taps["query"].shape[2],
    )


def _redrawn_lists(config: Attending, rng: Array, length: int, packing: Packing | None) -> KeyLists:
    """Key lists drawn from ``rng`` by the original's rules; NumPy draws, so compiled code calls the host."""

    def draw(seed: int | Array) -> KeyLists:
        pattern = layer_pattern(config, int(seed), length)  # repeats as drawn: the shape must not depend on them
        assert pattern is not None  # whether there is one depends on the length alone
        pattern = pattern if packing is None else packed_pattern(pattern, packing)
        return KeyLists._make(static_lists(pattern, packing is not None))

    shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), draw(0))
    seed = jax.random.randint(rng, (), 0, np.iinfo(np.int32).max)
    lists: KeyLists = jax.pure_callback(draw, shapes, seed, vmap_method="sequential")
    return lists


def encoder_lists(config: Attending, seed: int, length: int, packing: Packing | None = None) -> Lists | None:
    """Return a layer's key lists for inputs of ``length`` tokens; ``seed`` is its index. None is full attention.

    packing: for the packed row of these inputs.
    """
    if config.is_decoder:
        if config.attention_type == "block_sparse":
            _say_full_attention()
        return None
    if pattern_blocks(config, length) is None:  # asked first, because an exported program may leave its length open
        return None
    pattern = _pattern(config, seed, length, packing)
    spread = spread_lists(pattern, -(-length // config.block_size))
    return spread or key_lists(pattern, rounded=packing is not None)


def _pattern(config: Attending, seed: int, length: int, packing: Packing | None) -> Pattern | None:
    pattern = layer_pattern(config, seed, length)
    return pattern if pattern is None or packing is None else packed_pattern(fold_repeats(pattern), packing)


class _Row(NamedTuple):
    """A packing of a batch for the device, with dead blocks at its end: few sizes, few compilations.

    blocks: int32 [P], where each block of the row is among the batch's. places: int32 [B, blocks of a text], where each
    of the batch's is in the row; P where it is skipped. texts: how many blocks of the row hold text.
    """

    blocks: Array
    places: Array
    texts: int
    block_size: int

    def pack(self, x_BLD: Array) -> Array:
        """Return the row, [1, P x W, D]; its dead blocks repeat the batch's first."""
        _, L, D = x_BLD.shape
        whole = jnp.pad(x_BLD, ((0, 0), (0, -L % self.block_size), (0, 0)))
        return whole.reshape(-1, self.block_size, D)[self.blocks].reshape(1, -1, D)

    def pack_mask(self, mask_BL: Array) -> Array:
        """Return the row's mask, [1, P x W]; dead blocks are padding."""
        mask_PW = self.pack(mask_BL[:, :, None]).reshape(-1, self.block_size)
        return (mask_PW & (jnp.arange(len(mask_PW)) < self.texts)[:, None]).reshape(1, -1)

    def unpack(self, x_1RD: Array, length: int) -> Array:
        """Return the batch [B, L, D] from the row; 0 where blocks were skipped."""
        x_PWD = x_1RD.reshape(len(self.blocks), self.block_size, -1)
        x_BnWD = x_PWD.at[self.places].get(mode="fill", fill_value=0)
        return x_BnWD.reshape(len(self.places), -1, x_1RD.shape[-1])[:, :length]


def _row_of(packing: Packing, shape: tuple[int, int], W: int) -> _Row:
    """The row of a batch [B, L]."""
    B, L = shape
    texts = len(packing.blocks)
    P = round_up(texts)
    places = np.full(B * -(-L // W), P, np.int32)
    places[packing.blocks] = np.arange(texts)
    return _Row(jnp.asarray(np.pad(packing.blocks, (0, P - texts))), jnp.asarray(places.reshape(B, -1)), texts, W)


class LayerStack(nn.Module):
    """Layers that attend by blocks; each has its own random blocks.

    gradient_checkpointing: compute the layers again in the backward pass rather than keep them. skip_padding: run a
    batch as one row of the blocks that hold text, where attention is block-sparse and the mask is known beforehand.
    """

    config: Attending
    dtype: DTypeLike = jnp.float32
    gradient_checkpointing: bool = False
    skip_padding: bool = True

    def make(self, kinds: LayerKinds) -> nn.Module:
        """Return the layers, to be given a name in setup."""
        return _Layers(self.config, self.dtype, self.gradient_checkpointing, kinds)

    def run(
        self,
        layers: Any,
        x_BLD: Array,
        inputs: Inputs,
        use_cache: bool = False,
        output_attentions: bool = False,
        output_taps: bool = False,
        deterministic: bool = True,
        output_hidden_states: bool = True,
    ) -> Encoded:
        """Run all layers on embeddings [B, L, D]. Hidden states are 0 in blocks that were skipped.

        output_hidden_states: return all of them, not the last alone.
        """
        (B, L, _), flags = x_BLD.shape, (use_cache, output_attentions, output_taps, deterministic, output_hidden_states)
        as_it_is = use_cache or output_attentions or output_taps or not self.skip_padding or current_mesh() is not None
        if inputs.packing is None or as_it_is:
            return layers(x_BLD, inputs._replace(packing=None), L, *flags)
        row = _row_of(inputs.packing, (B, L), self.config.block_size)
        encoded = layers(row.pack(x_BLD), inputs._replace(mask=row.pack_mask(inputs.mask)), L, *flags)
        return encoded._replace(hidden_states=tuple(row.unpack(x, L) for x in encoded.hidden_states))


_KINDS = layer_kinds(BigBirdLayer)


class BigBirdEncoder(LayerStack):
    """All layers of the encoder."""

    def setup(self) -> None:
        config: Any = self.config
        self.layer = self.make(_KINDS)
        self.LayerNorm = norm_where("prenorm", config, self.dtype)

    def __call__(self, x_BLD: Array, inputs: Inputs, *flags: bool, **named: bool) -> Encoded:
        """Run all layers on embeddings [B, L, D], and in prenorm the last LayerNorm; the arguments are run's."""
        encoded = self.run(self.layer, x_BLD, inputs, *flags, **named)
        *states, last_BLD = encoded.hidden_states
        return encoded._replace(hidden_states=(*states, self.LayerNorm(last_BLD)))
