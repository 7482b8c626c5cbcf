"""A model of ours and transformers' with the same weights, and inputs for both."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bigbird_port.config import BigBirdConfig

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


def model_run(framework: str, side: str, config: BigBirdConfig, ids: np.ndarray, mask: np.ndarray) -> Run:
    """The base model of one side as a function without arguments that gives its last hidden state [B, L, D]."""
    return {"torch": _torch_run, "flax": _flax_run}[framework](side, config, ids, mask)


def _torch_run(side: str, config: BigBirdConfig, ids: np.ndarray, mask: np.ndarray) -> Run:
    import torch

    from models_torch import BigBirdModel

    torch.set_num_threads(1)
    model: Any = BigBirdModel.from_config(config, 0)
    if side == "peer":
        import transformers

        weights = model.state_dict()
        model = transformers.BigBirdModel(peer_config(config)).eval()
        model.load_state_dict(weights)
    inputs = torch.from_numpy(ids), torch.from_numpy(mask)

    def run() -> np.ndarray:
        with torch.no_grad():
            return model(*inputs).last_hidden_state.numpy()

    return run


def _flax_run(side: str, config: BigBirdConfig, ids: np.ndarray, mask: np.ndarray) -> Run:
    import jax

    from models_flax import FlaxBigBirdModel

    model: Any = FlaxBigBirdModel.from_config(config, 0)
    params = model.params
    if side == "peer":
        import transformers

        model = transformers.FlaxBigBirdModel(peer_config(config), _do_init=False)
    compiled = jax.jit(lambda params, ids, mask: model(ids, mask, params=params).last_hidden_state)
    return lambda: np.asarray(compiled(params, ids, mask))
