"""Weights of an opened source in canonical form, piece by piece: what every command reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from bigbird_port.files.casting import cast
from bigbird_port.files.digests import THREADS
from bigbird_port.formats.store import Store, read
from bigbird_port.schema.layout import Dims, change_layout, contiguous, same_order

T = TypeVar("T")


def pieces_as(store: Store, name: str, axes: str, wanted: str, sizes: Dims) -> Iterator[np.ndarray]:
    """Yield one tensor, laid out as ``axes``, flat and in the order of ``wanted``; whole where that is another order.

    Raises ValueError where its data are damaged.
    """
    if same_order(axes, wanted):
        yield from store.pieces(name)
    else:
        yield contiguous(change_layout(read(store, name), axes, wanted, sizes)).reshape(-1)


def hash_pieces(pieces: Iterable[np.ndarray], dtype: np.dtype | None = None, name: str = "") -> str:
    """sha256 of the values' bytes, cast to ``dtype`` if given; raises ValueError where ``cast`` does."""
    digest = hashlib.sha256()
    for piece in pieces:
        values = piece if dtype is None else cast(piece, dtype, name)[0]
        digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def for_each(names: Iterable[str], work: Callable[[str], T]) -> dict[str, T | ValueError]:
    """Return what ``work`` gives for each name, or the ValueError that it raises; on two threads."""

    def guarded(name: str) -> T | ValueError:
        try:
            return work(name)
        except ValueError as error:
            return error

    listed = list(names)
    with ThreadPoolExecutor(THREADS) as threads:
        return dict(zip(listed, threads.map(guarded, listed), strict=True))


def reading_order(store: Store, sources: Mapping[str, str]) -> list[tuple[str, str]]:
    """(canonical name, source name) pairs in the order in which the source is fastest to read."""
    order = {name: i for i, name in enumerate(store.tensors)}
    return sorted(sources.items(), key=lambda item: order[item[1]])
