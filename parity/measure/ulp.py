"""Distances in units of the last place: how many numbers of a dtype lie between two."""

from __future__ import annotations

import numpy as np

from bigbird_port.files.casting import float_type

_BITS = {"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16}  # from fine to coarse
_ORDER = list(_BITS)


def coarser(a: np.dtype, b: np.dtype) -> str:
    """Return the name of the coarser of two dtypes.

    A dtype that is not floating point is passed over. If both are not, the name is "int64".
    """
    names = [dtype.name for dtype in (a, b) if dtype.name in _BITS]
    return max(names, key=_ORDER.index) if names else "int64"


def ulp_distance(a: np.ndarray, b: np.ndarray, dtype: str) -> np.ndarray:
    """Return, for finite float64 ``a`` and ``b``, how many steps of ``dtype`` lie between them, as float64.

    Both are rounded to ``dtype`` first. -0 and 0 are the same number. Infinity is one step beyond the largest number.
    For "int64" the difference is returned. Raises ValueError for another dtype.
    """
    if dtype == "int64":
        return np.abs(a - b)
    if dtype not in _BITS:
        raise ValueError(f"there are no ulps of {dtype}: expected one of {', '.join(_BITS)}")
    x, y = (_ordinal(numbers, dtype).astype(np.int64) for numbers in (a, b))
    return (np.maximum(x, y) - np.minimum(x, y)).view(np.uint64).astype(np.float64)  # modulo 2**64, so none overflows


def _ordinal(numbers: np.ndarray, dtype: str) -> np.ndarray:
    """Each number's place among those of the dtype, an integer of its size; that of 0 is 0."""
    bits = _BITS[dtype]
    with np.errstate(over="ignore"):
        raw = numbers.astype(float_type(dtype)).view(f"i{bits // 8}")
    negative = raw >> (bits - 1)  # -1 where the sign is set, else 0
    return (raw ^ (negative & np.iinfo(raw.dtype).max)) - negative
