"""How attention runs on each framework and device: the one place for chunk sizes and choices of operations.

Every formulation computes the same. Formulations differ in how much is gathered at a time, and by which operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Formulation:
    """How much runs at once, and by which operations. None means all at once, and for onednn_from never.

    heads_at_once: attention heads of a text.
    blocks_at_once: query blocks with a list, whose keys are gathered together.
    fused: whether the framework's own fused attention runs on the gathered keys.
    measured: the measurements that justify the numbers, or what the numbers rest on where nothing was measured.
    tokens_at_once: tokens in the feed-forward sublayer, whose inner states are four times as wide.
    scores_at_once: scores of full attention, over all attention heads and texts.
    onednn_from: the least number of multiplications, in the product of a query block with its keys, from which torch
        makes such products one by one in oneDNN, if that is faster (models_torch.attention.onednn).
    batched: whether all texts and heads of a batch are one, as a device wants it to which every operation is a launch
        (torch: models_torch.attention.batched). heads_at_once, blocks_at_once and fused are then nothing to it.
    gathered_at_once: numbers of keys and values that a batch gathers at a time.
    kernels: whether kernels of this project run (attention/kernels.py), where they can. The other fields are for where
        they cannot.
    """

    heads_at_once: int | None
    blocks_at_once: int | None
    fused: bool
    measured: str
    tokens_at_once: int | None = None
    scores_at_once: int | None = None
    onednn_from: int | None = None
    batched: bool = False
    gathered_at_once: int | None = None
    kernels: bool = False


# By framework and device type. Measured on one thread: 12 heads x 64, block size 64, r = 3, float32, 4096 tokens.
FORMULATIONS = {
    ("torch", "cpu"): Formulation(
        1,
        16,
        False,
        "81 ms in oneDNN (8 blocks 84, 4 blocks 89, one 110); as batches of products 104, in fused attention 106; on "
        "two threads batches are as fast, with gradients faster; without AVX-512 they are, too. Full attention, "
        "causal, 2 texts: 1.6 s, all queries at once 3.5 s, a quarter of these scores 2.8 s",
        scores_at_once=1 << 22,
        onednn_from=1 << 20,
    ),
    ("torch", "cuda"): Formulation(
        None,
        None,
        False,
        "not measured: few launches (counted in tests/devices/test_fake_cuda.py). What is gathered at once is 2 GiB in "
        "float32: 8 texts of 4096 tokens",
        batched=True,
        gathered_at_once=1 << 29,
        kernels=True,
    ),
    ("flax", "cpu"): Formulation(
        1,
        4,
        False,
        "62 ms, 2 to 8 lists alike, one 74; all heads at once: 1.7 times as long. Feed-forward: 172 ms, 4096 tokens at "
        "once 222, 256 at once 183. Full attention, causal, 2 texts: 0.7 s, all queries at once 1.3 s",
        tokens_at_once=1024,
        scores_at_once=1 << 22,
    ),
    ("flax", "gpu"): Formulation(None, 64, False, "not measured: as for torch"),
    ("flax", "tpu"): Formulation(
        None, 64, False, "not measured: estimates of a compiler for kernels (docs/kernels.md)", kernels=True
    ),
}
ANYWHERE = Formulation(
    None, 64, False, "not measured: an exported program runs on any device, and the number of its texts is open"
)
_EXPORTING: ContextVar[bool] = ContextVar("exporting", default=False)


@contextmanager
def exporting() -> Iterator[None]:
    """While it lasts, Flax is traced for a program that runs on any device. torch's compiler tells it so by itself."""
    before = _EXPORTING.set(True)
    try:
        yield
    finally:
        _EXPORTING.reset(before)


def exported() -> Formulation | None:
    """Return the formulation of an exported program, while one is traced."""
    return ANYWHERE if _EXPORTING.get() else None


def formulation(framework: str, device_type: str) -> Formulation:
    """Return the formulation of a device type ("cpu", "cuda", ...). A type without an entry runs as the CPU does."""
    return FORMULATIONS.get((framework, device_type), FORMULATIONS[framework, "cpu"])
