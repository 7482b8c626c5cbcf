import numpy as np
import pytest

from parity.metrics import measure


def test_equal_arrays_pass_with_zero_error():
    x = np.arange(6.0).reshape(2, 3)
    d = measure(x, x, 1e-5)
    assert (d.max_abs, d.mean_abs, d.relative, d.cosine_error, d.excess) == (0, 0, 0, 0, 0)
    assert d.passed


def test_figures_are_those_of_the_worst_element():
    reference = np.array([[1.0, 2.0], [4.0, -8.0]])
    d = measure(reference + np.array([[0, 0.5], [0, 0.25]]), reference, 0.1)
    assert d.max_abs == 0.5
    assert d.mean_abs == 0.75 / 4
    assert d.scale == pytest.approx(np.sqrt(85 / 4))
    assert d.relative == pytest.approx(0.5 / d.scale)
    assert d.worst_index == (0, 1)
    assert d.would_pass == pytest.approx(0.5 / d.scale)
    assert d.excess == pytest.approx(0.5 / d.scale / 0.1)
    assert not d.passed


def test_large_elements_may_differ_in_proportion_but_do_not_excuse_small_ones():
    reference = np.array([1e6, 1.0])
    assert measure(reference + np.array([1.0, 0]), reference, 1e-5).passed
    assert not measure(reference + np.array([0, 1e-3]), reference, 1e-5).passed


def test_a_permutation_is_seen():
    x = np.random.default_rng(0).standard_normal(100)
    d = measure(np.random.default_rng(1).permutation(x), x, 1e-5)
    assert not d.passed
    assert d.cosine_error > 0.1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_nan_and_inf_fail_even_on_both_sides(bad, side):
    arrays = [np.ones((2, 2)), np.ones((2, 2))]
    arrays[side][1, 0] = bad
    d = measure(*arrays, 1e9)
    assert (d.passed, d.problem, d.worst_index) == (False, "NaN or Inf", (1, 0))
    arrays[1 - side][1, 0] = bad
    assert not measure(*arrays, 1e9).passed


def test_nothing_compared_fails():
    assert measure(np.zeros((0, 3)), np.zeros((0, 3)), 1).problem == "nothing to compare"
    assert not measure(np.ones(3), np.ones(3), 1, where=np.zeros(3, bool)).passed


def test_shapes_must_agree():
    assert "shapes differ" in measure(np.ones((2, 1)), np.ones((1, 2)), 1e9).problem


def test_only_what_is_asked_for_is_compared():
    value = np.zeros((1, 2, 3))
    value[0, 1] = np.nan
    d = measure(value, np.zeros((1, 2, 3)), 1e-5, where=np.array([[True, False]]))
    assert d.passed


def test_cosine_error_does_not_cancel():
    x = np.ones(1000)
    y = x.copy()
    y[0] += 1e-6
    assert 0 < measure(y, x, 1).cosine_error < 1e-12
    assert measure(-x, x, 10).cosine_error == pytest.approx(2)
    assert measure(np.zeros(3), np.ones(3), 10).cosine_error == 1
