"""Ulp distances against chains of neighbours."""

import ml_dtypes
import numpy as np
import pytest

from parity.measure.ulp import coarser, ulp_distance

TYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("start", ["-3 steps", "0", "1", "-1", "largest", "least normal"])
def test_distance_counts_the_steps_of_nextafter(name, start):
    """Also from below 0 to above it, from denormal to normal numbers, and over powers of 2."""
    dtype = TYPES[name]
    finfo = ml_dtypes.finfo(dtype)
    least = float(finfo.smallest_subnormal)
    first = {"-3 steps": -3 * least, "0": 0.0, "1": 1.0, "-1": -1.0,
             "largest": float(finfo.max) * (1 - 4 * float(finfo.eps)),
             "least normal": float(finfo.smallest_normal) - 2 * least}[start]  # fmt: skip
    x = dtype(first)
    chain = [x]
    for _ in range(6):
        chain.append(np.nextafter(chain[-1], dtype(np.inf)))
    numbers = np.array(chain).astype(np.float64)
    numbers = numbers[np.isfinite(numbers)]
    assert ulp_distance(numbers, np.full(len(numbers), float(x)), name).tolist() == list(range(len(numbers)))
    assert ulp_distance(np.full(len(numbers), float(x)), numbers, name).tolist() == list(range(len(numbers)))


@pytest.mark.parametrize("name", TYPES)
def test_zeros_are_one_number_and_signs_are_crossed(name):
    least = float(ml_dtypes.finfo(TYPES[name]).smallest_subnormal)
    assert ulp_distance(np.array([0.0, -0.0, least]), np.array([-0.0, 0.0, -least]), name).tolist() == [0, 0, 2]


def test_the_reference_is_rounded_to_the_type():
    assert ulp_distance(np.array([1.0]), np.array([1.0 + 2**-26]), "float32") == 0
    assert ulp_distance(np.array([1.0]), np.array([1.0 + 2**-26]), "float64") == 2**26


def test_the_largest_distances_do_not_overflow():
    largest = np.array([np.finfo(np.float64).max])
    assert ulp_distance(largest, -largest, "float64") == pytest.approx(2 * 0x7FEFFFFFFFFFFFFF)
    assert ulp_distance(np.array([1e30]), np.array([-1e30]), "float16") == 2 * 0x7C00  # infinities of float16


def test_integers_differ_by_their_difference():
    assert ulp_distance(np.array([3.0]), np.array([7.0]), "int64") == 4


def test_the_coarser_type_counts():
    assert coarser(np.dtype(np.float64), np.dtype(np.float32)) == "float32"
    assert coarser(np.dtype(ml_dtypes.bfloat16), np.dtype(np.float64)) == "bfloat16"
    assert coarser(np.dtype(np.int32), np.dtype(np.float64)) == "float64"
    assert coarser(np.dtype(np.int32), np.dtype(np.int32)) == "int64"
    with pytest.raises(ValueError, match=r"no ulps of float8: expected one of float64, float32, float16, bfloat16"):
        ulp_distance(np.ones(1), np.ones(1), "float8")
