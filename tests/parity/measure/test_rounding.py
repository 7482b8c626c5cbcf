"""What rounding does to a model is measured on it: inexact arithmetic by hand, and clean models that were red."""

import dataclasses

import numpy as np
import pytest

import parity.measure.rounding as rounding_module
from benchmarks.false_alarms import compare
from benchmarks.random_models import draw_model
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.schema.weights import from_framework, initial_arrays
from parity.faults.setup import Setup, own_inputs
from parity.measure.losses import make_labels
from parity.measure.metrics import measure
from parity.measure.rounding import FACTOR, Rounding, most, noise
from parity.reference.rounding import UNITS, Arithmetic, arithmetic, either_side, lossy, lossy_as
from parity.run.compare import Scene
from parity.witnesses.witness import Setting, make_witness


def inexact(dtype="float32", seed=0):
    return arithmetic(Arithmetic(dtype, np.random.default_rng(seed)))


def test_outside_of_inexact_arithmetic_nothing_is_touched():
    x = np.ones(3)
    assert lossy(x) is x
    assert lossy_as(x, 2 * x) is x
    assert either_side("m", x) is x
    with inexact(""):
        assert lossy(x) is x


@pytest.mark.parametrize("dtype", UNITS)
def test_an_operand_is_off_by_its_share(dtype):
    """One rounding: the unit. A sum of 48 terms: 3 times that. Beyond 512 terms libraries sum in blocks."""
    x = np.full(100_000, 3.0)
    with inexact(dtype):
        for terms, times in ((1, np.sqrt(7 / 6)), (48, 3), (512, np.sqrt(1 + 512 / 6)), (5000, np.sqrt(1 + 512 / 6))):
            assert np.std(lossy(x, terms) / 3 - 1) == pytest.approx(times * UNITS[dtype], rel=0.02)


def test_float32_sums_are_off_by_no_more_than_the_law_says_and_not_far_less():
    """Products of random matrices in float32 against float64: the law holds for what machines compute."""
    rng = np.random.default_rng(0)
    for n in (16, 256, 1024):
        x, w = rng.standard_normal((64, n)).astype(np.float32), rng.standard_normal((n, 64)).astype(np.float32)
        exact = x.astype(float) @ w.astype(float)
        with inexact():
            drawn = np.std(lossy(x.astype(float), n) @ lossy(w.astype(float), n) - exact)
        assert 0.05 * drawn < np.std(x @ w - exact) < drawn


def test_what_is_near_a_kink_is_put_on_its_other_side():
    """Rounding moves the row by about 1e-3: 5e-3 is near enough, 0.1 is not."""
    exact, moved = np.array([[5e-3, -5e-3, 0.1, 1.0]]), 1e-3 * np.array([[1, -1, 1, -1]])
    known = Arithmetic("", np.random.default_rng(0))
    with arithmetic(known):
        either_side("m", exact)
    with arithmetic(dataclasses.replace(known, dtype="float32")):
        found = either_side("m", exact + moved)
    np.testing.assert_allclose(found, [[-5e-3, 5e-3, 0.1 + 1e-3, 1.0 - 1e-3]])


def test_noise_is_that_of_the_element_or_of_its_row():
    exact = np.zeros((2, 2))
    runs = [np.array([[3.0, 0.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [0.0, 1.0]])]
    np.testing.assert_allclose(noise(runs, exact) ** 2, [[4.5, 2.25], [0.25, 0.5]])
    assert noise([np.array(2.0), np.array(0.0)], np.array(1.0)) == 1


def test_an_allowed_error_passes_whatever_the_tolerance_says_and_only_there():
    reference, allowed = np.ones(4), np.array([0.5, 0, 0, 0])
    assert measure(reference + np.array([0.4, 0, 0, 0]), reference, 1e-3, allowed=allowed).passed
    assert measure(reference + np.array([0.6, 0, 0, 0]), reference, 1e-3, allowed=allowed).excess == pytest.approx(1.2)
    assert not measure(reference + np.array([0, 0.4, 0, 0]), reference, 1e-3, allowed=allowed).passed


def test_where_nothing_of_a_row_is_left_more_is_allowed():
    exact = np.array([[1.0, 1.0], [1e-9, 1e-9]])
    found = most([exact + 1e-3], exact)
    np.testing.assert_allclose(found, [[1e-3 * FACTOR] * 2, [1e-3 * FACTOR**2] * 2])


# What was red though nothing was wrong: steep attention; a LayerNorm over 2, whose gradient is 0 but for rounding.
STEEP = {"hidden_size": 64, "num_attention_heads": 2, "initializer_range": 0.8}
NARROW = {"hidden_size": 2, "num_attention_heads": 1, "initializer_range": 0.02}
ILL = {"steep": ("masked-lm", STEEP), "narrow": ("qa", NARROW), "choices": ("multiple-choice", STEEP)}


def ill(name, seed=0):
    head, fields = ILL[name]
    config = BigBirdConfig(
        vocab_size=50, sep_token_id=5, num_hidden_layers=2, intermediate_size=48, max_position_embeddings=64, **fields
    ).for_head(head)
    weights = from_framework(initial_arrays(config, head, "torch", seed)[0], config, head, "torch")
    return Setup(name, head, config, weights, own_inputs(config, head, 2, 40, seed), seed)


@pytest.mark.parametrize("name", ILL)
def test_ill_conditioned_models_are_green(name):
    """In torch; beyond the table they are, or this would show nothing."""
    result = compare(ill(name), "float32", ("torch",))
    assert result.passed, [(row.place, row.error, row.difference.excess) for row in result.failures]
    assert any(row.tolerance.rounding for row in result.rows)
    for row in result.rows:
        assert not row.tolerance.rounding or "rounding alone" in row.tolerance.reason


@pytest.mark.parametrize("name", ILL)
def test_a_weight_off_by_a_percent_is_red_in_them_as_well(name):
    """In the same models: what rounding is granted excuses no fault."""
    setup = ill(name)
    wrong = dict(setup.weights)
    key = "encoder.layer.0.attention.self.value.kernel"
    wrong[key] = wrong[key].copy()
    wrong[key].flat[np.abs(wrong[key]).argmax()] *= 1.01
    reference = make_witness("reference", setup.config, setup.head, setup.weights)
    torch = make_witness("torch", setup.config, setup.head, wrong)
    step = setup.config.family.steps(setup.config)[1]
    stream, other = reference.start(setup.inputs)[1], torch.start(setup.inputs)[1]
    fed = reference.hidden(stream)
    exact, found = reference.step(step, stream)[0], torch.step(step, torch.inject(other, fed))[0]
    rounding = Rounding(reference, setup.inputs, "float32")
    rounding.at(step, exact, fed)
    allowed = rounding.allowed("local", "layer.0.value")
    assert measure(found["layer.0.value"], exact["layer.0.value"], 1e-6, allowed=allowed).excess > 10
    right = make_witness("torch", setup.config, setup.head, setup.weights)
    clean = right.step(step, right.inject(right.start(setup.inputs)[1], fed))[0]
    assert measure(clean["layer.0.value"], exact["layer.0.value"], 1e-6, allowed=allowed).passed


def test_without_it_these_models_are_red(monkeypatch):
    """The negative control: the factor is what decides."""
    monkeypatch.setattr(rounding_module, "FACTOR", FACTOR / 1e4)
    result = compare(ill("steep"), "float32", ("torch",))
    assert {row.tap for row in result.failures} >= {"layer.0.context"}


@pytest.mark.parametrize("index", range(6, 300, 42))
def test_a_sample_of_random_models_is_green(index):
    """Held out: no constant was chosen by these."""
    result = compare(draw_model(9, index).setup, "float32", ("torch",))
    assert result.rows
    assert list(result.failures) == []


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_random_models_are_green(dtype):
    for index in range(60):
        assert list(compare(draw_model(11, index).setup, dtype).failures) == [], index


def test_the_models_own_pass_needs_no_rounding():
    """Where the table's tolerances hold, no inexact run is made: it would cost four times the reference."""
    setup = draw_model(9, 6).setup
    reference = make_witness("reference", setup.config, setup.head, setup.weights)
    found = Rounding(reference, setup.inputs, "float32")
    assert found._streams == []
    alone = Scene("x", "", {}, np.ones((1, 1), bool), 1)
    assert list(alone.allowed(("torch", "reference"), "local", "layer.0.key")) == []


class Granted:
    """Stands for Rounding: a few runs grant 1e-5, many ``many``."""

    def __init__(self, many):
        self.many, self.asked = many, 0

    def allowed(self, error, tap):
        return np.full((1, 4, 8), 1e-5)

    def surer(self):
        self.asked += 1
        return Granted.__new__(Granted)._of(self.many)

    def _of(self, many):
        self.allowed = lambda error, tap: np.full((1, 4, 8), many)
        return self


@pytest.mark.parametrize(
    ("error", "many", "asked", "passed"), [(3e-5, 6e-5, 1, True), (3e-5, 2e-5, 1, False), (3e-4, 1, 0, False)]
)
def test_where_few_runs_say_red_many_decide_unless_it_is_hopeless(error, many, asked, passed):
    """Four runs may all be small by chance, but not a hundred times too small."""
    granted = Granted(many)
    scene = Scene("base", "", {"torch": Setting()}, np.ones((1, 4), bool), 1, rounding=granted)
    truth = np.ones((1, 4, 8))
    row = scene.row(("torch", "reference"), "local", "layer.0.output", (truth + error, truth))
    assert (row.passed, granted.asked) == (passed, asked)


def test_few_runs_are_small_by_chance():
    """Why: in this model a row's gradient has one factor, and four draws of it may all be near 0.

    The reference's own inexact runs are beyond ten times the noise of four others, and within that of 24.
    """
    setup = draw_model(1, 6).setup
    reference = make_witness("reference", setup.config, setup.head, setup.weights)
    labels = make_labels(setup.config, setup.head, setup.inputs, setup.seed)
    exact, *runs = (
        reference.inexact(dtype, seed).backward(setup.inputs, labels).taps["layer.0.query"]
        for seed, dtype in enumerate(["", *["float32"] * 28])
    )
    few, many = (
        max((np.abs(run - exact) / np.maximum(noise(others, exact), 1e-300)).max() for run in runs[:4])
        for others in (runs[4:8], runs[4:])
    )
    assert many < FACTOR < few
