"""How devices round that nobody has measured yet, beside the CPU, which was measured.

A tolerance of such a device is the CPU's, times how much more an operand loses there. The model is that of
parity/reference/rounding.py: an operand of a sum is off by a share of itself,

    share = sqrt(unit^2 + accumulator^2 passes summed / 6 + product^2 / 3)

The first term is the operand's own rounding. A term of a sum of ``summed`` terms, each added in ``passes`` steps, takes
part in passes * summed / 2 roundings on average, each spread evenly over a unit in the accumulator's last place.
``product`` is what a product loses beside its rounding. Errors are, to first order, linear in these shares. So if no
share is more than ``ratio`` times the CPU's, no error is. docs/on-device.md says where the figures come from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parity.witnesses.devices import kind_of_device

if TYPE_CHECKING:
    from parity.measure.tolerances import Table

DERIVED = "derived, not measured on a device"
MEASURED = "cpu"  # the device whose measured tolerances others are derived from
MEASURED_AS = {"float64": "float32"}  # a bound that holds for float32 holds for what is wider
_LONGEST = 4096  # terms of the longest sum of a layer: the inner size of the large models
_CUT = 8  # products that a tensor core adds before it cuts what its accumulator cannot hold


@dataclass(frozen=True)
class Arithmetic:
    """How sums of products round. All but ``summed``, ``passes`` and ``text`` are relative errors.

    unit: half a unit in the last place of a result. accumulator: the same of the number that a sum grows in. summed:
    terms whose roundings add up. passes: how often a term is added. product: the most that a product loses beside its
    rounding.
    """

    unit: float
    accumulator: float
    summed: int
    text: str
    passes: int = 1
    product: float = 0.0

    @property
    def share(self) -> float:
        """What an operand is off by, as a share of itself."""
        sums = self.accumulator**2 * self.passes * self.summed / 6
        return math.sqrt(self.unit**2 + sums + self.product**2 / 3)


_SINGLE, _HALVES = 2.0**-24, {"bfloat16": 2.0**-9, "float16": 2.0**-11}
_CUTS = _LONGEST / _CUT * 2.0**-23  # all cuts are towards zero, so that they add up
ARITHMETICS: dict[tuple[str, str], Arithmetic] = {
    ("cpu", "float32"): Arithmetic(_SINGLE, _SINGLE, 512, "float32, summed in blocks of up to 512"),
    ("cuda", "float32"): Arithmetic(
        _SINGLE, _SINGLE, _LONGEST, f"float32 with TF32 off, summed one after the other over up to {_LONGEST}"
    ),
    ("tpu", "float32"): Arithmetic(
        *(_SINGLE, _SINGLE, _LONGEST),
        f"float32 at HIGHEST precision: six bfloat16 passes, summed in float32 over up to {_LONGEST}",
        passes=6,
        product=2.0**-25,  # four parts of 2^-27: two products left out, and what the third piece of each operand lacks
    ),
    ("tpu", "bfloat16"): Arithmetic(
        _HALVES["bfloat16"], _SINGLE, _LONGEST, f"bfloat16 products, summed in float32 over up to {_LONGEST}"
    ),
}
for _name, _unit in _HALVES.items():
    ARITHMETICS["cpu", _name] = Arithmetic(_unit, _SINGLE, 512, f"{_name}, summed in float32")
    ARITHMETICS["cuda", _name] = Arithmetic(
        *(_unit, _SINGLE, _LONGEST),
        f"{_name} products, summed in float32 by tensor cores that cut after every {_CUT} of up to {_LONGEST}",
        product=_CUTS,
    )


def ratio(device: str, dtype: str) -> float:
    """Return how many times as much an operand loses on a device as on the CPU; 1 where neither is modelled.

    device: a name such as "cuda:1".
    """
    dtype = MEASURED_AS.get(dtype, dtype)
    own, measured = ARITHMETICS.get((kind_of_device(device), dtype)), ARITHMETICS.get((MEASURED, dtype))
    return own.share / measured.share if own and measured else 1.0


def why_derived(device: str, dtype: str) -> str:
    """Return the reason of a derived tolerance: the model, and the factor that follows from it."""
    own, measured = ARITHMETICS[device, dtype], ARITHMETICS[MEASURED, dtype]
    return (
        f"{DERIVED}: {own.text}, loses {ratio(device, dtype):.3g} times what {measured.text}, as measured on the CPU, "
        "loses (parity/measure/derived.py)"
    )


def check_judged_dtype(dtype: str, device: str, table: Table | None) -> None:
    """Raise ValueError for a number type that a device has not, or of which nothing is known there.

    table: of tolerances; None is the one that is shipped.
    """
    kind, judged = kind_of_device(device), MEASURED_AS.get(dtype, dtype)
    if kind == "tpu" and dtype == "float64":
        raise ValueError(
            "a TPU has no float64: XLA would make pairs of float32 of it, which hold 49 bits and not 53; choose "
            "--dtype float32, or --flax-device cpu"
        )
    measured = table is not None and any((one.dtype, one.device) == (judged, kind) for one in table.entries.values())
    if not measured and (kind, judged) not in ARITHMETICS:
        raise ValueError(
            f"nothing is known of {dtype} on {device}: choose another --dtype or device, or measure it there: "
            f"'bigbird-port parity calibrate --dtype {dtype} --device {kind} --out FILE', then --tolerances FILE"
        )
