"""Every figure against a plain computation, permutations, and what must never pass."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.measure import metrics, quantiles
from parity.measure.metrics import Difference, measure, scale_of
from parity.measure.quantiles import Quantiles
from parity.measure.tolerances import Tolerance

FIGURES = ("max_abs", "mean_abs", "median_abs", "p99_abs", "p999_abs", "relative", "cosine_error", "snr_db",
           "max_ulp", "p99_ulp", "would_pass", "excess")  # fmt: skip


def pair(shape=(3, 40, 5), noise=1e-3, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal(shape)
    return (reference + noise * rng.standard_normal(shape)).astype(dtype), reference


def plain_scale(reference):
    magnitudes = np.sort(np.abs(reference[reference != 0]))
    median = magnitudes[(len(magnitudes) + 1) // 2 - 1]
    return np.sqrt(np.mean(np.minimum(magnitudes, 8 * median) ** 2))


def plain_quantile(errors, share):
    return np.sort(errors, axis=None)[int(np.ceil(share * errors.size)) - 1]


def test_equal_arrays_pass_with_zero_error():
    x = np.arange(6.0).reshape(2, 3)
    d = measure(x, x, 1e-5)
    assert (d.max_abs, d.mean_abs, d.relative, d.cosine_error, d.excess, d.would_pass, d.max_ulp) == (0,) * 7
    assert d.snr_db == np.inf
    assert d.passed


def test_every_figure_is_that_of_a_plain_computation():
    value, reference = pair()
    d = measure(value, reference, 1e-3)
    a, b = value.astype(np.float64), reference
    error = np.abs(a - b)
    scale = plain_scale(b)
    ratio = error / np.maximum(scale, np.abs(b))
    expected = {
        "max_abs": error.max(),
        "mean_abs": error.mean(),
        "median_abs": plain_quantile(error, 0.5),
        "p99_abs": plain_quantile(error, 0.99),
        "p999_abs": plain_quantile(error, 0.999),
        "scale": scale,
        "relative": error.max() / scale,
        "cosine_error": 1 - (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()),
        "snr_db": 10 * np.log10((b * b).sum() / (error**2).sum()),
        "would_pass": ratio.max(),
        "excess": ratio.max() / 1e-3,
    }
    for name, number in expected.items():
        assert getattr(d, name) == pytest.approx(number, rel=1e-9, abs=1e-15), name
    assert d.worst_index == np.unravel_index(ratio.argmax(), ratio.shape)
    assert not d.passed
    assert measure(value, reference, d.would_pass).passed
    assert not measure(value, reference, d.would_pass * 0.999).passed


def test_pieces_equal_the_whole(monkeypatch):
    value, reference = pair((7, 11, 13))
    where = np.random.default_rng(1).random((7, 11)) < 0.6
    whole = measure(value, reference, 1e-3, where, logits=True)
    monkeypatch.setattr(metrics, "_PIECE", 10)
    pieces = measure(value, reference, 1e-3, where, logits=True)
    turned = measure(np.asfortranarray(value), reference[::-1][::-1], 1e-3, where, logits=True)
    for other in (pieces, turned):
        assert other.worst_index == whole.worst_index
        for name in (*FIGURES, "scale"):
            assert getattr(other, name) == pytest.approx(getattr(whole, name), rel=1e-12), name
        assert vars(other.logits) == pytest.approx(vars(whole.logits), rel=1e-12)
    plain = measure(value[where], reference[where], 1e-3)
    assert [getattr(plain, name) for name in FIGURES] == pytest.approx([getattr(whole, name) for name in FIGURES])
    assert where[whole.worst_index[:2]]


def test_memory_stays_small_for_a_large_tap():
    """2 x 1024 x 1024, not contiguous: more than are kept for quantiles; a float64 copy would take 16 MiB."""
    reference = np.broadcast_to(np.linspace(-1, 1, 1024), (2, 1024, 1024))
    value = reference.astype(np.float32, order="F")
    tracemalloc.start()
    d = measure(value, reference, 1e-6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert d.passed
    assert peak < 12 * 2**20


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.permutations(range(12)).filter(lambda order: order != list(range(12))))
def test_every_figure_changes_when_elements_are_permuted(order):
    """Each element has a magnitude and an error of its own, so that no two orders give the same figures."""
    reference = 1.7 ** np.arange(12.0)
    value = (reference * (1 + 1e-5 * 1.3 ** np.arange(12))).astype(np.float32)
    before, after = measure(value, reference, 1e-3), measure(value[order], reference, 1e-3)
    for name in FIGURES:
        assert getattr(after, name) != getattr(before, name), name
    assert after.would_pass > before.would_pass


def test_scores_figures_change_when_elements_are_permuted():
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((6, 9))
    before = measure(reference, reference, 1, logits=True).logits
    after = measure(rng.permuted(reference, axis=1), reference, 1, logits=True).logits
    assert (before.kl_max, before.kl_mean, before.top1, before.top5, before.flips, before.margin_lost) == (
        0,
        0,
        1,
        1,
        0,
        0,
    )
    assert after.kl_max > after.kl_mean > 0
    assert max(after.top1, after.top5) < 1
    assert after.flips > 0
    assert after.margin_lost > 0


def test_a_permutation_is_seen():
    x = np.random.default_rng(0).standard_normal(100)
    d = measure(np.random.default_rng(1).permutation(x), x, 1e-5)
    assert not d.passed
    assert d.cosine_error > 0.1


def test_large_elements_may_differ_in_proportion_but_do_not_excuse_small_ones():
    reference = np.array([1e6, *np.ones(9)])
    assert measure(reference + np.array([1.0, *np.zeros(9)]), reference, 1e-5).passed
    assert not measure(reference + np.array([*np.zeros(9), 1e-3]), reference, 1e-5).passed


@pytest.mark.parametrize("share", [0.001, 0.1, 0.45])
def test_outliers_do_not_raise_the_scale(share):
    """As where the scores of a question's tokens are 1e6 lower than the others."""
    rng = np.random.default_rng(0)
    reference = rng.standard_normal(1000)
    calm = scale_of(reference)
    reference[: int(1000 * share)] -= 1e6
    assert calm < scale_of(reference) < 16 * calm
    value = reference.copy()
    value[-1] += 1e-3
    assert not measure(value, reference, 1e-5).passed


def test_scale_is_the_root_mean_square_of_what_is_not_zero():
    x = np.random.default_rng(0).standard_normal(5000)
    assert scale_of(x) == pytest.approx(np.sqrt(np.mean(x**2)), rel=1e-12)
    assert scale_of(np.concatenate((x, np.zeros(20000)))) == scale_of(x)
    assert scale_of(np.array(-3.0)) == 3
    assert scale_of(np.full(4, 1e300)) == pytest.approx(1e300)
    assert scale_of(np.zeros(4)) == 0


def test_scale_is_that_of_what_is_compared():
    x = np.array([[1.0, 1.0], [100.0, 100.0]])
    assert scale_of(x, np.array([True, False])) == 1
    assert measure(x, x, 1, np.array([False, True])).scale == 100


def test_one_element_of_one_weight_off_by_a_percent_is_caught():
    """Through a dense layer of 768 inputs: only one output channel moves, by 1 % of one of its 768 terms."""
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((512, 768)), rng.standard_normal((768, 768)) / 28
    right = x @ kernel
    wrong = kernel.copy()
    wrong[5, 7] *= 1.01
    float32 = measure(x.astype(np.float32) @ kernel.astype(np.float32), right, 5e-6)
    assert float32.passed, float32
    d = measure((x @ wrong).astype(np.float32), right, 5e-6)
    assert not d.passed
    assert d.worst_index[1] == 7


def test_a_reference_of_zeros_allows_no_error():
    zeros = np.zeros((2, 2))
    assert measure(zeros, zeros, 1e-5).passed
    d = measure(zeros + 1e-30, zeros, 1e-5)
    assert not d.passed
    assert d.would_pass == np.inf
    assert measure(zeros + 1e-6, zeros, Tolerance(1e-5, 1e-6, 10, "", "", floor=1.0)).passed
    assert measure(zeros + 1e-6, zeros, 1e-5, scale=1.0).passed


def test_nothing_may_differ_under_a_tolerance_of_zero():
    ids = np.array([1, 2, 3])
    assert measure(ids, ids, 0.0).passed
    assert not measure(ids + np.array([0, 0, 1]), ids, 0.0).passed


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_nan_and_inf_fail_even_on_both_sides(bad, side):
    arrays = [np.ones((2, 2)), np.ones((2, 2))]
    arrays[side][1, 0] = bad
    d = measure(*arrays, 1e9, logits=True)
    assert (d.passed, d.problem, d.worst_index) == (False, "NaN or Inf", (1, 0))
    arrays[1 - side][1, 0] = bad
    assert not measure(*arrays, 1e9).passed


def test_nothing_compared_fails():
    assert measure(np.zeros((0, 3)), np.zeros((0, 3)), 1).problem == "nothing to compare"
    assert not measure(np.ones(3), np.ones(3), 1, where=np.zeros(3, bool)).passed
    assert not Difference().passed


@pytest.mark.parametrize("wrong", [np.nan, -1.0])
def test_a_tolerance_that_is_no_number_is_refused(wrong):
    with pytest.raises(ValueError, match="expected numbers >= 0"):
        measure(np.ones(2), np.ones(2), wrong)
    for scale in (wrong, np.inf):
        with pytest.raises(ValueError, match="expected numbers >= 0"):
            measure(np.ones(2), np.ones(2), 1.0, scale=scale)


def test_shapes_must_agree():
    assert "shapes differ" in measure(np.ones((2, 1)), np.ones((1, 2)), 1e9).problem
    assert "shapes differ" in measure(np.ones(()), np.ones(1), 1e9).problem


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


def test_half_precision_arrays_are_measured_in_their_own_ulps():
    import ml_dtypes

    reference = np.linspace(1, 2, 50)
    for dtype, name in ((ml_dtypes.bfloat16, "bfloat16"), (np.float16, "float16")):
        value = reference.astype(dtype)
        kept_wider = value.astype(np.float32)
        assert measure(value, reference, 1).max_ulp == measure(kept_wider, reference, 1, dtype=name).max_ulp == 0
        assert measure(np.nextafter(value, dtype(9)), reference, 1).max_ulp == 1
        assert measure(kept_wider, reference, 1).max_ulp > 1


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def test_scores_against_plain_computations():
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((4, 5, 30))
    value = reference + 0.3 * rng.standard_normal(reference.shape)
    where = rng.random((4, 5)) < 0.7
    found = measure(value, reference, 1, where, logits=True).logits
    rows = list(zip(value[where], reference[where], strict=True))
    divergences = [float((softmax(b) * np.log(softmax(b) / softmax(a))).sum()) for a, b in rows]
    assert found.kl_max == pytest.approx(max(divergences))
    assert found.kl_mean == pytest.approx(np.mean(divergences))
    flips = [b.max() - b[a.argmax()] for a, b in rows if a.argmax() != b.argmax()]
    assert flips
    assert (found.flips, found.margin_lost, found.positions) == (len(flips), max(flips), len(rows))
    assert found.top1 == pytest.approx(1 - len(flips) / len(rows))
    shared = [len(set(np.argsort(a)[-5:]) & set(np.argsort(b)[-5:])) / 5 for a, b in rows]
    assert found.top5 == pytest.approx(np.mean(shared))


def test_small_divergences_do_not_cancel():
    """For a small change d of the scores the divergence is half the variance of d."""
    rng = np.random.default_rng(0)
    reference, d = rng.standard_normal((1, 50)), 1e-9 * rng.standard_normal((1, 50))
    p = softmax(reference)
    expected = ((p * d * d).sum() - (p * d).sum() ** 2) / 2
    assert measure(reference + d, reference, 1, logits=True).logits.kl_max == pytest.approx(expected, rel=1e-5)


def test_what_the_reference_scores_alike_may_be_exchanged():
    reference = np.array([[1.0, 1.0, 0.0, -1e6]])
    found = measure(reference + np.array([[0, 1e-7, 0, 0]]), reference, 1, logits=True).logits
    assert (found.top1, found.top5, found.flips, found.margin_lost) == (1, 1, 0, 0)


@pytest.mark.parametrize("limit", [0, 10**6])
def test_quantiles_are_exact_or_at_most_a_64th_above(monkeypatch, limit):
    monkeypatch.setattr(quantiles, "EXACT", limit)
    rng = np.random.default_rng(0)
    numbers = np.concatenate((np.exp(rng.normal(-15, 8, 3000)), np.zeros(500), [5e-324, 1e-310, 1.0, 2.0, 1e300]))
    found = Quantiles(numbers.size)
    for piece in np.array_split(rng.permutation(numbers), 7):
        found.add(piece)
    assert found.max == numbers.max()
    for share in (0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0):
        exact = np.sort(numbers)[max(0, int(np.ceil(share * numbers.size)) - 1)]
        assert exact <= found.at(share) <= (exact if limit else max(exact * (1 + 1 / 64), exact + 1e-323)), share


def test_quantiles_of_nothing_are_refused():
    with pytest.raises(ValueError, match="no numbers"):
        Quantiles(3).at(0.5)


def test_a_few_scores_half_of_them_near_zero_have_the_scale_of_the_others():
    """Four next-sentence scores of a clean run: cut at 8 medians they made an error of 7e-7 look like 1.4e-5."""
    scores = np.array([-0.002, -0.008, 0.41, -0.16])
    assert scale_of(scores) == pytest.approx(np.sqrt(np.square(scores).mean()))
