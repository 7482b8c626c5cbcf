"""What a call returns: rows by name, as lists or as one framework's arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding

from bigbird_port.installed import need
from bigbird_port.tokenizers.calls.alignment import Alignment

TENSORS = ("np", "pt", "jax")


class BatchEncoding(Alignment, dict[str, Any]):
    """Rows by name (``input_ids``, ``attention_mask``, ...), also as attributes.

    Lists of ints, or arrays of shape (rows, tokens) where a call asked for tensors. ``encodings`` has one
    ``tokenizers.Encoding`` per row for a fast tokenizer, and is None for a slow one; ``batch[0]`` is the first of them.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        encoding: Encoding | Sequence[Encoding] | None = None,
        tensor_type: str | None = None,
        prepend_batch_axis: bool = False,
    ) -> None:
        super().__init__(data)
        self.encodings = [encoding] if isinstance(encoding, Encoding) else encoding
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    @property
    def data(self) -> dict[str, Any]:
        """The rows by name."""
        return self

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return super().__getitem__(key)
        if isinstance(key, slice):
            return {name: rows[key] for name, rows in self.items()}
        return self._encoding(key)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the encoding has no {name!r}, only {', '.join(self)}") from None

    def copy(self) -> BatchEncoding:
        """Return a batch of the same rows."""
        return BatchEncoding(self, self.encodings)

    def to(self, device: Any, *, non_blocking: bool = False) -> BatchEncoding:
        """Move torch's tensors to a device, here and now, and return the batch itself.

        Raises ValueError where no entry is one.
        """
        moved = {name: rows for name, rows in self.items() if hasattr(rows, "to")}
        if self and not moved:
            raise ValueError("to: no entry of the batch is a torch tensor: call the tokenizer with return_tensors='pt'")
        self.update({name: rows.to(device, non_blocking=non_blocking) for name, rows in moved.items()})
        return self

    def convert_to_tensors(self, tensor_type: str | None = None, prepend_batch_axis: bool = False) -> BatchEncoding:
        """Turn lists into arrays ("np", "pt" or "jax"), here and now, and return the batch itself.

        prepend_batch_axis: the entries are one row. Raises ValueError as the tokenizer's call does.
        """
        if tensor_type is not None:
            lists = {name: rows for name, rows in self.items() if isinstance(rows, list | tuple)}
            rows = {name: [row] if prepend_batch_axis else row for name, row in lists.items()}
            self.update(to_tensors(rows, tensor_type))
        return self


def to_tensors(rows: Mapping[str, Any], framework: str | None) -> dict[str, Any]:
    """Turn every entry into an array of ``framework``: int64, or int32 for "jax"; None leaves the lists.

    Raises ValueError for an unknown framework, and for rows that differ in length.
    """
    if framework is None:
        return dict(rows)
    if framework not in TENSORS:
        raise ValueError(f"return_tensors is {framework!r}, but it must be one of {', '.join(map(repr, TENSORS))}")
    return {name: _tensor(name, value, framework) for name, value in rows.items()}


def _tensor(name: str, value: Any, framework: str) -> Any:
    try:
        array = np.asarray(value, dtype=np.int64)
    except ValueError:
        lengths = sorted({len(row) for row in value})
        raise ValueError(
            f"{name}: rows of {lengths[0]} to {lengths[-1]} tokens make no array: ask for padding=True, and for "
            "truncation=True where there is a max_length"
        ) from None
    if framework == "pt":
        need("return_tensors='pt'", "torch")
        import torch

        return torch.from_numpy(array)
    if framework == "jax":
        need("return_tensors='jax'", "jax")
        import jax.numpy as jnp

        return jnp.asarray(array.astype(np.int32))
    return array
