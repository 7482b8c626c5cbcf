"""How tensors are shared out among the files of a sharded checkpoint."""

from __future__ import annotations

from collections.abc import Mapping


def split_into_shards(sizes: Mapping[str, int], max_shard_size: int | None) -> list[list[str]]:
    """Return the names in each shard; ``sizes`` and the limit are in bytes, None is no limit.

    Greedy in the order of ``sizes``; a tensor above the limit gets a shard of its own, and the shard being filled goes
    on behind it. This is huggingface_hub's rule (serialization/_base.py), so that folders look like transformers' own.
    """
    if max_shard_size is None or not sizes:
        return [list(sizes)]
    shards: list[list[str]] = []
    current: list[str] = []
    filled = 0
    for name, size in sizes.items():
        if size > max_shard_size:
            shards.append([name])
            continue
        if filled + size > max_shard_size:
            shards.append(current)
            current, filled = [], 0
        current.append(name)
        filled += size
    return [*shards, current] if current else shards


def check_max_shard_size(max_shard_size: int | None) -> None:
    """Raise ValueError unless the limit is None or at least one byte."""
    if max_shard_size is not None and max_shard_size < 1:
        raise ValueError(f"max_shard_size is {max_shard_size}, but it must be at least 1 (bytes) or None")
