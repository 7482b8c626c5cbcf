"""A model of ours and transformers' with the same weights, and inputs for both."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig

Run = Callable[[], np.ndarray]
SIDES = ("peer", "ours")
# By the name of a width: the base model's, and one that only shows that a benchmark runs.
WIDTHS: dict[str, dict[str, int]] = {
    "base": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "block_size": 64},
    "tiny": {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "block_size": 16, "vocab_size": 200},
}
_PEER_PREFIX = {"torch": "", "flax": "flax_"}
_OURS_ALONE = ("max_encoder_length", "random_blocks", "classifier_style")  # fields that transformers does not have


def make_config(width: str, length: int, layers: int = 1) -> BigBirdConfig:
    """The configuration for texts of ``length`` tokens, with the original's random blocks."""
    own: dict[str, Any] = {"num_hidden_layers": layers, "max_position_embeddings": length}
    return BigBirdConfig(**WIDTHS[width], **own)


def with_their_blocks(config: BigBirdConfig) -> BigBirdConfig:
    """The same with the random blocks of transformers' evaluation mode: it computes what transformers computes."""
    return config.replace(random_blocks="transformers")


def peer_config(config: BigBirdConfig) -> Any:
    """The same for transformers."""
    from transformers import BigBirdConfig as PeerConfig

    return PeerConfig(**{name: value for name, value in config.to_dict().items() if name not in _OURS_ALONE})


def make_ids(config: BigBirdConfig, lengths: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Ids [B, L] of texts of these lengths, padded to the longest, and their mask."""
    L = max(lengths)
    mask = (np.arange(L) < np.array(lengths)[:, None]).astype(np.int64)
    return np.random.default_rng(L).integers(100, config.vocab_size, mask.shape) * mask, mask


def import_models(framework: str, side: str) -> None:
    """Import what a side's model needs, and let JAX start."""
    importlib.import_module(f"models_{framework}")  # transformers' side takes its weights from ours
    if framework == "flax":
        import jax

        jax.block_until_ready(jax.numpy.zeros(1))
    if side == "peer":
        importlib.import_module(f"transformers.models.big_bird.modeling_{_PEER_PREFIX[framework]}big_bird")


def model_run(
    framework: str, side: str, config: BigBirdConfig, ids: np.ndarray, mask: np.ndarray, compiled: str = "any mask"
) -> Run:
    """The base model of one side as a function without arguments that gives its last hidden state [B, L, D].

    compiled: what of Flax runs under jax.jit: a program for "any mask", one for "this mask", or "no" program.
    """
    if framework == "torch":
        return _torch_run(side, config, ids, mask)
    return _flax_run(side, config, ids, mask, compiled)


def _torch_run(side: str, config: BigBirdConfig, ids: np.ndarray, mask: np.ndarray) -> Run:
    import torch

    torch.set_num_threads(1)
    if side == "peer":
        import transformers

        model: Any = transformers.BigBirdModel(peer_config(config))
    else:
        import models_torch

        model = models_torch.BigBirdModel(config)
    model.eval().load_state_dict(_torch_weights(config.replace(random_blocks="original")), assign=True)
    inputs = torch.from_numpy(ids), torch.from_numpy(mask)

    def run() -> np.ndarray:
        with torch.no_grad():
            return model(*inputs).last_hidden_state.numpy()

    return run


def _flax_run(side: str, config: BigBirdConfig, ids: np.ndarray, mask: np.ndarray, compiled: str) -> Run:
    import jax

    params = _flax_weights(config.replace(random_blocks="original"))
    if side == "peer":
        import transformers

        model: Any = transformers.FlaxBigBirdModel(peer_config(config), _do_init=False)
    else:
        import models_flax

        model = models_flax.FlaxBigBirdModel(config, _do_init=False)

    def forward(params: Any, ids: Any, mask: Any) -> Any:
        return model(ids, mask, params=params).last_hidden_state

    if compiled == "no":
        return lambda: np.asarray(forward(params, ids, mask))
    if compiled == "this mask":
        program = jax.jit(lambda params, ids: forward(params, ids, mask))
        return lambda: np.asarray(program(params, ids))
    program = jax.jit(forward)
    return lambda: np.asarray(program(params, ids, mask))


@functools.cache  # drawing them takes seconds
def _torch_weights(config: BigBirdConfig) -> Any:
    from models_torch import BigBirdModel

    return BigBirdModel.from_config(config, 0).state_dict()


@functools.cache
def _flax_weights(config: BigBirdConfig) -> Any:
    from models_flax import FlaxBigBirdModel

    return FlaxBigBirdModel.from_config(config, 0).params
