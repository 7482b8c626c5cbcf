"""The encoder: a stack of layers.

Legend: B batch, L length, K keys, D hidden, N heads, I inner, P packed blocks, W block size, R = P x W.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.configuration import Attending
from bigbird_port.sparse.packing import Packing, packed_pattern
from bigbird_port.sparse.pattern import fold_repeats, layer_pattern, pattern_blocks
from models_torch.attention.lists import KeyLists, key_lists
from models_torch.attention.probabilities import dense_probabilities
from models_torch.bigbird.cache import LayerCache
from models_torch.bigbird.inputs import Inputs
from models_torch.bigbird.layer import BigBirdLayer, Taps, norm_where
from models_torch.bigbird.tracing import lengths

# What a layer is called with: x, mask, lists, head mask, cache, encoder states and their mask.
_Arguments = tuple[Tensor, Tensor, KeyLists | None, Tensor | None, LayerCache | None, Tensor | None, Tensor | None]


class Encoded(NamedTuple):
    """Input and output of every layer [B, L, D], or the last output alone, and what was asked for.

    Taps are named layer.<i>.<tap>.
    """

    hidden_states: tuple[Tensor, ...]
    caches: tuple[LayerCache, ...]
    attentions: tuple[Tensor, ...]
    cross_attentions: tuple[Tensor, ...]
    taps: Taps


def encoder_lists(
    config: Attending, seed: int, length: int, device: torch.device, packing: Packing | None = None
) -> KeyLists | None:
    """Return a layer's key lists for inputs of ``length`` tokens; ``seed`` is its index. None is full attention.

    packing: for the packed row of these inputs.
    """
    if pattern_blocks(config, length) is None:  # asked first, because an exported program may leave its length open
        return None
    pattern = layer_pattern(config, seed, length)
    if pattern is not None and packing is not None:
        pattern = packed_pattern(fold_repeats(pattern), packing)
    return key_lists(pattern, device)


class _Row(NamedTuple):
    """A packing of a batch on the device. blocks: int64 [P], where each block of the row is among the batch's."""

    blocks: Tensor
    block_size: int

    def pack(self, x_BLD: Tensor) -> Tensor:
        """Return the row, [1, P x W, D]."""
        missing = -x_BLD.shape[1] % self.block_size
        whole_BLD = functional.pad(x_BLD, (0, 0, 0, missing)) if missing else x_BLD
        return whole_BLD.reshape(-1, self.block_size, x_BLD.shape[-1]).index_select(0, self.blocks).flatten(0, 1)[None]

    def unpack(self, x_1RD: Tensor, batch: int, length: int) -> Tensor:
        """Return the batch [B, L, D] from the row; 0 where blocks were skipped."""
        n, D = -(-length // self.block_size), x_1RD.shape[-1]
        blocks_PX = x_1RD.reshape(len(self.blocks), -1)
        whole = blocks_PX.new_zeros(batch * n, blocks_PX.shape[1]).index_copy(0, self.blocks, blocks_PX)
        return whole.view(batch, -1, D)[:, :length]


class LayerStack(nn.Module):
    """Layers that attend by blocks; each has its own random blocks.

    blocks: the layers, which a subclass names. gradient_checkpointing: in training, compute the layers again in the
    backward pass rather than keep them, with torch's checkpoint_options. skip_padding: run a batch as one row of the
    blocks that hold text, where Inputs.packing says how.
    """

    config: Attending
    blocks: nn.ModuleList

    def __init__(self, config: Attending) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.checkpoint_options: dict[str, Any] = {}
        self.skip_padding = True

    def forward(
        self,
        x_BLD: Tensor,
        inputs: Inputs,
        use_cache: bool = False,
        output_attentions: bool = False,
        output_taps: bool = False,
        generator: torch.Generator | None = None,
        output_hidden_states: bool = True,
    ) -> Encoded:
        """Run all layers on embeddings [B, L, D]. Hidden states are 0 in blocks that were skipped.

        generator: where random_blocks is "resample", training draws new blocks from it. Raises ValueError without.
        """
        flags = (use_cache, output_attentions, output_taps, output_hidden_states)
        B, L = lengths(x_BLD)
        as_it_is = use_cache or output_attentions or output_taps or not self.skip_padding
        packing = None if as_it_is else inputs.packing
        lists = self._lists(self._seeds(generator), L, x_BLD.device, packing)
        if packing is None:
            return self.finish(self._run_layers(x_BLD, inputs, lists, *flags))
        row = _Row(torch.as_tensor(packing.blocks, device=x_BLD.device).long(), self.config.block_size)
        mask_1R = row.pack(inputs.mask[..., None])[..., 0]
        encoded = self._run_layers(row.pack(x_BLD), inputs._replace(mask=mask_1R), lists, *flags)
        states = tuple(row.unpack(x, B, L) for x in encoded.hidden_states)
        return self.finish(encoded._replace(hidden_states=states))

    def finish(self, encoded: Encoded) -> Encoded:
        """Return what came of the layers, with what a subclass makes of the last hidden state."""
        return encoded

    def _run_layers(
        self,
        x_BLD: Tensor,
        inputs: Inputs,
        lists: list[KeyLists | None],
        use_cache: bool,
        output_attentions: bool,
        output_taps: bool,
        output_hidden_states: bool,
    ) -> Encoded:
        """Run all layers; what nobody asked for is not held."""
        keep_taps = use_cache or output_attentions or output_taps
        states, caches, attentions, cross_attentions = [x_BLD] * output_hidden_states, [], [], []
        all_taps: Taps = {}
        for i, layer in enumerate(self.blocks):
            arguments = (
                x_BLD,
                inputs.mask,
                lists[i],
                None if inputs.head_mask is None else inputs.head_mask[i],
                None if inputs.past is None else inputs.past[i],
                inputs.encoder_states,
                inputs.encoder_mask,
            )
            x_BLD, taps = self._run(layer, arguments, keep_taps)
            if output_hidden_states or i == len(self.blocks) - 1:
                states.append(x_BLD)
            if use_cache:
                caches.append(_cache_of(taps))
            if output_attentions:
                attentions.append(self._attentions(taps, "", arguments))
            if output_attentions and inputs.encoder_states is not None:
                cross_attentions.append(self._attentions(taps, "cross_", arguments))
            if output_taps:
                all_taps |= {f"layer.{i}.{name}": tap for name, tap in taps.items()}
        return Encoded(tuple(states), tuple(caches), tuple(attentions), tuple(cross_attentions), all_taps)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # NumPy draws and caches: nothing to trace
    def _lists(
        self, seeds: list[int], length: int, device: torch.device, packing: Packing | None
    ) -> list[KeyLists | None]:
        """The key lists of every layer; None is full attention."""
        return [encoder_lists(self.config, seed, length, device, packing) for seed in seeds]

    def _seeds(self, generator: torch.Generator | None) -> list[int]:
        """Seed of each layer's random blocks: its index, as in the original, unless they are redrawn."""
        layers = self.config.num_hidden_layers
        if self.config.random_blocks != "resample" or not self.training:
            return list(range(layers))
        if generator is None:
            raise ValueError(
                'random_blocks is "resample", so training draws new random blocks, but no generator was given: '
                "pass generator=torch.Generator(), the same one at every step"
            )
        return torch.randint(2**32, (layers,), generator=generator, device=generator.device).tolist()

    def _run(self, layer: nn.Module, arguments: _Arguments, keep_taps: bool) -> tuple[Tensor, Taps]:
        """Run a layer; taps that nobody needs are dropped, or they would hold what checkpointing is to free."""

        def run() -> tuple[Tensor, Taps]:
            output_BLD, taps = layer(*arguments)
            return output_BLD, taps if keep_taps else {}

        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(run, use_reentrant=False, **self.checkpoint_options)
        return run()

    def _attentions(self, taps: Taps, prefix: str, arguments: _Arguments) -> Tensor:
        """The probabilities [B, N, L, K] of a layer's self-attention, or ("cross_") cross-attention."""
        _, mask, lists, head_mask_N, _, _, encoder_mask = arguments
        query, key = taps[f"{prefix}query"], taps[f"{prefix}key"]
        if prefix:
            assert encoder_mask is not None
            mask, lists = encoder_mask, None
        causal = self.config.is_decoder and not prefix
        attentions = dense_probabilities(query, key, mask, lists, self.config.block_size, causal)
        return attentions if head_mask_N is None else attentions * head_mask_N[:, None, None]


class BigBirdEncoder(LayerStack):
    """All layers of the encoder."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__(config)
        self.layer = nn.ModuleList(BigBirdLayer(config) for _ in range(config.num_hidden_layers))
        self.LayerNorm = norm_where("prenorm", config)

    @property
    def blocks(self) -> nn.ModuleList:  # type: ignore[override]
        """The layers."""
        return self.layer

    def finish(self, encoded: Encoded) -> Encoded:
        """Return the same with the last hidden state's LayerNorm, in prenorm."""
        *states, last_BLD = encoded.hidden_states
        return encoded._replace(hidden_states=(*states, self.LayerNorm(last_BLD)))


def _cache_of(taps: Taps) -> LayerCache:
    return LayerCache(taps["key"], taps["value"], taps.get("cross_key"), taps.get("cross_value"))
