"""Measures the table of tolerances: how far each framework is from the float64 reference, over sizes and seeds.

Every tap of every size is measured accumulated (each witness goes on from its own values) and locally (each layer, and
the head, is given the reference's input), and the gradients, the loss and token-by-token decoding where a size has
them. The reference is parity/reference, in NumPy and float64, whose own error is some 1e-16 times what the entries
hold.

How errors grow with depth (growth_exponents, float32, 1 to 16 layers of 64 units, three heads): accumulated ones like
depth ** 0.35 in the median of the kinds of taps, 0.65 for the steepest (0.75 for the scores of question answering,
whose head has a layer of its own); the table takes the square root. Gradients like depth ** 0.6 in the median and
depth ** 1.1 for the steepest: they pass through all layers twice; the table takes them as proportional, and to how
steep the loss is (parity/measure/gradient_scale.py). Local errors do not depend on the layer. The worst case is
divided by the law before it is multiplied by the factor, so that no law widens a bound at the depths that were
measured.
"""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import numpy as np

from bigbird_port.families.family import Family
from bigbird_port.families.registry import default_family, family_named
from bigbird_port.files.writing import check_writable, write_whole
from parity.given.golden import log_softmax
from parity.given.inputs import Inputs, decoded
from parity.measure.calibration.cases import Case, Size, make_case, sizes_of
from parity.measure.gradient_scale import gradient_scale, steepness
from parity.measure.metrics import measure, scale_of
from parity.measure.tolerances import GROWTH, MEANINGLESS, Entry, Table, kind_of
from parity.reference.backward import Gradients
from parity.reference.heads import MASKED
from parity.witnesses import with_reference
from parity.witnesses.devices import flax_device, kind_of_device, torch_device
from parity.witnesses.whole import run_whole
from parity.witnesses.witness import Dtype, Framework, Setting, make_witness

DTYPES = ("float32", "bfloat16", "float16")
SEEDS = (0, 1, 2, 3)
FACTOR = 4.0
_FACTOR_REASON = (
    "factor 4: twice, because two witnesses may be off to opposite sides, and twice for sizes, seeds and orders of "
    "summation that were not sampled"
)
_GROWTH_REASONS = {
    "none": "",
    "sqrt": "; the bound is for the first layer and grows with the root of the layers up to the tap (layer + 1)",
    "linear": "; the bound is for no layers and grows with the number of layers + 1",
}
# Losses and log-probabilities are in nats: errors in them come from the scores', and do not shrink with them.
_FLOORS = {"loss": 1.0, "log_probs": 1.0}


@dataclass(frozen=True)
class Sample:
    """One measured tap of a family. layer: how many lie before its own. found: the tolerance that would just pass."""

    kind: str
    dtype: str
    device: str
    error: str
    layer: int
    found: float
    at: str
    family: Family = field(default_factory=default_family, repr=False, compare=False)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What the table's entries are told apart by."""
        return self.kind, self.dtype, self.device, self.error

    @property
    def growth(self) -> str:
        """How this sample's error grows with depth."""
        if self.error == "gradient":
            return "none" if self.kind in _near_the_loss(self.family) else "linear"
        before = {tap.kind or tap.name for tap in self.family.stages[0].taps}
        grows = self.error in ("accumulated", "decoding") and self.kind not in before
        return "sqrt" if grows else "none"


def _near_the_loss(family: Family) -> set[str]:
    """Kinds of gradients that have passed through no layer."""
    return {f"grad.{tap.kind or tap.name}" for head in family.heads.values() for tap in head.taps}


def _without_depth(family: Family) -> set[str]:
    """Taps before the first layer."""
    return {tap.name for tap in family.stages[0].taps}


def calibrate(
    out: Path | None = None,
    seeds: Sequence[int] = SEEDS,
    sizes: Sequence[str] = (),
    dtypes: Sequence[str] = DTYPES,
    devices: Sequence[str] = ("cpu",),
    witnesses: Sequence[str] = (),
    report: Callable[[str], None] | None = None,
    family: str = "",
) -> Table:
    """Measure a table of tolerances and, with ``out``, write it there.

    family: its name; empty: the default one. sizes: names of ``sizes_of``; none: all. devices: by name, such as "cuda"
    or "tpu:0". witnesses: "torch", "flax"; none: those that run on a device, which is Flax alone on a TPU. report: is
    told what is being measured. Raises ValueError for what is unknown or not there, before anything is measured.
    """
    own = family_named(family) if family else default_family()
    sizes = tuple(sizes) or tuple(sizes_of(own))
    _check(seeds, sizes, dtypes, witnesses or _WITNESSES, own)
    for device in devices:
        for witness in on_device(device, witnesses):
            _find_device(witness, device)
        if report and (left_out := set(_WITNESSES) - set(on_device(device, witnesses))) and not witnesses:
            report(f"{', '.join(left_out)} does not run on {device}, and is left out")
    if out:
        check_writable(out, "parity calibrate --out")
    samples = list(measure_samples(seeds, sizes, dtypes, devices, witnesses, report, own))
    table = make_table(samples, _command(seeds, sizes, dtypes, devices, witnesses, own))
    if out:
        write_whole(out, table.to_json(), "parity calibrate --out")
    return table


def measure_samples(
    seeds: Sequence[int],
    sizes: Sequence[str],
    dtypes: Sequence[str],
    devices: Sequence[str],
    witnesses: Sequence[str] = (),
    report: Callable[[str], None] | None = None,
    family: Family | None = None,
) -> Iterator[Sample]:
    """Yield every measured tap; raises ValueError if one holds NaN or Inf, or is not that of the reference.

    family: whose sizes they are; None: the default one.
    """
    family = family or default_family()
    for name in sizes:
        size = sizes_of(family)[name]
        most = size.most_seeds
        if report and seeds[most:]:
            report(f"{name}: seeds {', '.join(map(str, seeds[most:]))} are left out, because this size takes long")
        truths = [_truth(make_case(name, seed, size)) for seed in seeds[:most]]
        for dtype in dtypes:
            for device in devices:
                for witness in on_device(device, witnesses):
                    if report:
                        report(f"{name}: {witness} in {dtype} on {device}")
                    for truth in truths:
                        model = _make(witness, truth.case, dtype, device)
                        for kind, error, layer, found in _compare(model, truth):
                            at = f"{witness}, {truth.case.where}, layer {layer}"
                            yield Sample(kind, dtype, kind_of_device(device), error, layer, found, at, family)


def growth_exponents(
    layers: Sequence[int], seeds: Sequence[int], like: Size, dtype: str = "float32"
) -> dict[tuple[str, str], float]:
    """Return x of "the worst error is proportional to layers ** x", fitted for each (error, kind) that has depth.

    layers: numbers of layers to run ``like`` with, in torch on the CPU. Accumulated errors are those of the last layer
    and of what follows it.
    """
    worst: dict[tuple[str, str], dict[int, float]] = defaultdict(lambda: defaultdict(float))
    before = _without_depth(default_family())
    for number in layers:
        size = replace(like, layers=number)
        for seed in seeds:
            truth = _truth(make_case("depth", seed, size))
            model = _make("torch", truth.case, dtype, "cpu")
            for kind, error, layer, found in _compare(model, truth):
                if error == "gradient" or (error == "accumulated" and layer >= number - 1 and kind not in before):
                    worst[error, kind][number] = max(worst[error, kind][number], found)
    fits = {key: np.polyfit(np.log(list(by)), np.log(list(by.values())), 1) for key, by in worst.items()}
    return {key: float(fit[0]) for key, fit in fits.items()}


def make_table(samples: Sequence[Sample], command: str) -> Table:
    """Return the table that follows from samples: the worst of each key, and its bound."""
    by_key: dict[tuple[str, str, str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        by_key[sample.key].append(sample)
    entries, unjudged = {}, {}
    for (kind, dtype, device, error), group in by_key.items():
        worst, sample = max(((s.found / GROWTH[s.growth](s.layer), s) for s in group), key=lambda pair: pair[0])
        reason = f"worst of {len(group)} taps; {_FACTOR_REASON}{_GROWTH_REASONS[sample.growth]}"
        floor = _FLOORS.get(kind, 0.0)
        numbers = (worst, len(group), FACTOR, worst * FACTOR)
        entry = Entry(kind, dtype, device, error, *numbers, sample.growth, floor, sample.at, reason)
        if entry.bound < MEANINGLESS:
            entries[entry.key] = entry
        else:
            unjudged[entry.key] = f"off by {worst:.2g} of its scale at worst ({sample.at}): a bound would excuse all"
    return Table(entries, command, _versions(), unjudged)


@dataclass(frozen=True)
class Truth:
    """What the reference computes for a case. streams: hidden states into layer 0, 1, .. and into the head."""

    case: Case
    taps: dict[str, np.ndarray]
    streams: list[np.ndarray]
    gradients: Gradients | None
    decoding: tuple[Inputs, np.ndarray] | None


def _truth(case: Case) -> Truth:
    reference: Any = with_reference.make(case.config, case.size.head, case.weights, Setting())
    taps, stream = reference.start(case.inputs)
    streams = [reference.hidden(stream)]
    for step in case.config.family.steps(case.config)[1:-1]:
        own, stream = reference.step(step, stream)
        taps |= own
        streams.append(reference.hidden(stream))
    taps |= reference.finish(stream)
    gradients = reference.backward(case.inputs, case.labels) if case.size.gradients else None
    decoding = None
    if (head := case.config.family.heads[case.size.head]).decodes:
        inputs = decoded(case.inputs, case.config)
        decoding = inputs, run_whole(reference, inputs).taps[head.returned[0]]
    return Truth(case, taps, streams, gradients, decoding)


Found = tuple[str, str, int, float]  # kind, error, layer, found


_WITNESSES = ("torch", "flax")


def on_device(device: str, witnesses: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the witnesses to measure on a device: those that were chosen, or all that run there."""
    return tuple(witnesses) or (("flax",) if kind_of_device(device) == "tpu" else _WITNESSES)


def _find_device(witness: str, device: str) -> None:
    """Raise ValueError for a device that is not there, in words of the calibration."""
    try:
        {"torch": torch_device, "flax": flax_device}[witness](device)
    except ValueError as error:
        raise ValueError(
            f"{error}; to calibrate one framework alone, give --framework, and run it where the device is"
        ) from None


def _make(witness: str, case: Case, dtype: str, device: str) -> Framework:
    """Build a witness of a case; raises ValueError for a device that is not there."""
    setting = Setting(cast(Dtype, dtype), device)
    model: Framework = make_witness(witness, case.config, case.size.head, case.weights, setting)
    return model


def _compare(model: Framework, truth: Truth) -> Iterator[Found]:
    case, layers = truth.case, truth.case.config.num_hidden_layers
    for error, streams in (("accumulated", None), ("local", truth.streams)):
        found = run_whole(model, case.inputs, streams).taps
        if set(found) != set(truth.taps):
            raise ValueError(f"{case.where}: taps differ from the reference's: {sorted(set(found) ^ set(truth.taps))}")
        for name, reference in truth.taps.items():
            tap = case.config.family.heads[case.size.head].tap(name)
            where = reference > MASKED if tap and tap.penalised else None
            yield (
                kind_of(name, family=case.config.family),
                error,
                _layer(name, case),
                _found(case, name, found[name], reference, where=where),
            )
            if tap and tap.distribution:
                pair = log_softmax(found[name]), log_softmax(reference)
                yield "log_probs", error, layers, _found(case, "log_probs", *pair)
    if truth.gradients:
        yield from _compare_gradients(model, case, truth.gradients, layers)
    if truth.decoding:
        inputs, logits = truth.decoding
        (scores,) = case.config.family.heads[case.size.head].returned
        yield scores, "decoding", layers, _found(case, "decoding", model.decode(inputs), logits)


def _compare_gradients(model: Framework, case: Case, truth: Gradients, layers: int) -> Iterator[Found]:
    found, steep = model.backward(case.inputs, case.labels), steepness(truth.scores)
    yield "loss", "loss", layers, _found(case, "loss", np.array(found.loss), np.array(truth.loss))
    terms = truth.weights | truth.taps
    of_taps = {name: x for name, x in truth.taps.items() if name not in truth.scores}  # whose gradients are the loss's
    for values, references in ((found.weights, truth.weights), (found.taps, of_taps)):
        for name in (name for name in references if name in values):
            scale = gradient_scale(name, terms, case.config.family)
            distance = _found(case, name, values[name], references[name], scale=scale)
            yield kind_of(name, "gradient", case.config.family), "gradient", layers, distance / steep


def _found(
    case: Case,
    name: str,
    value: np.ndarray,
    reference: np.ndarray,
    where: np.ndarray | None = None,
    scale: np.ndarray | None = None,
) -> float:
    """The tolerance that would just pass; raises ValueError where nothing can be said."""
    if scale is None:
        scale = np.array(max(scale_of(reference, where), _FLOORS.get(kind_of(name, family=case.config.family), 0.0)))
    difference = measure(value, reference, 1.0, where, scale=scale)
    if difference.problem or not np.isfinite(difference.would_pass):
        raise ValueError(f"{case.where}: {name}: {difference.problem or 'the reference is 0, the value is not'}")
    return difference.would_pass


def _layer(name: str, case: Case) -> int:
    """How many layers lie before a tap's own."""
    place = case.config.family.place(name)
    if name in _without_depth(case.config.family):
        return 0
    return case.config.num_hidden_layers if place is None or place.layer is None else place.layer


def _check(
    seeds: Sequence[int], sizes: Sequence[str], dtypes: Sequence[str], witnesses: Sequence[str], family: Family
) -> None:
    for name, given, known in (
        ("size", sizes, sizes_of(family)),
        ("dtype", dtypes, DTYPES),
        ("witness", witnesses, _WITNESSES),
    ):
        unknown = [x for x in given if x not in known]
        if unknown or not given:
            raise ValueError(
                f"there is no {name} {', '.join(unknown) or 'at all'}: expected some of {', '.join(known)}"
            )
    if not seeds:
        raise ValueError("there are no seeds: give one or several")


def _command(
    seeds: Sequence[int],
    sizes: Sequence[str],
    dtypes: Sequence[str],
    devices: Sequence[str],
    witnesses: Sequence[str],
    family: Family,
) -> str:
    """The command line that measures the same again."""
    sides = "" if set(witnesses) == set(_WITNESSES) else "".join(f" --framework {x}" for x in witnesses)
    sizes = () if list(sizes) == list(sizes_of(family)) else sizes
    options: list[tuple[str, Sequence[str] | Sequence[int]]] = [
        ("family", [family.name] * (family is not default_family())),
        ("seed", seeds),
        ("size", sizes),
        ("dtype", dtypes),
        ("device", devices),
    ]
    given = "".join(f" --{option} {value}" for option, values in options for value in values)
    return f"bigbird-port parity calibrate{given}{sides}"


def _versions() -> dict[str, str]:
    packages = {name: _version(name) for name in ("numpy", "torch", "jax", "jaxlib", "flax")}
    return {"python": platform.python_version(), **packages, "machine": platform.machine()}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # of a framework that is not measured
        return "absent"


run_calibration = calibrate
