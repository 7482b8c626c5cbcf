"""A new program against the float64 reference, before it appears: several texts and one, padded on either side.

Legend: B batch, C choices, L length.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parity.exports.shape import Shape
from parity.exports.with_exported import ExportedWitness
from parity.given.inputs import Inputs, for_head, make_inputs
from parity.reports.report import why
from parity.run.conditions import Options, Pass
from parity.run.results import Condition, Result
from parity.run.walk import Walk

_OPEN_LENGTHS = {3: 48, 1: 33}  # tokens by batch, where a length is open
_SEED = 0


def prove(witness: ExportedWitness, reference: Any, shape: Shape) -> dict[str, Any]:
    """Hold a program against the reference as parity does; return what an Export says of it.

    Raises ValueError naming the worst output where one is beyond its tolerance.
    """
    head, dtype, config = witness.export.head, witness.export.dtype, reference.config
    options = Options(witnesses=("reference", witness.name), dtype=dtype, called=False, local=False)  # type: ignore[arg-type]
    result, witnesses, shapes = Result(heads=[head], witnesses=options.names), _both(reference, witness), []
    for batch, open_length in _OPEN_LENGTHS.items():
        L = shape.length or min(shape.longest, open_length)
        inputs = for_head(padded(config, batch, L), head, config)
        condition = Condition(f"{batch}x{L}", batch, L, f"seed {_SEED}", dtype=dtype)
        walk = Walk(options, Pass(condition, inputs, config), head, inputs, witnesses, result)
        walk.head(walk.layers())
        shapes.append(list(inputs["input_ids"].shape))
    rows = [row for row in result.rows if row.error == "accumulated"]
    failures = sorted(result.failures, key=lambda row: row.error == "loss")  # outputs say more
    wrong = [f"{row.tap}: {why(row)}" for row in failures] or ["nothing was compared"] * (not rows)
    if wrong:
        raise ValueError(
            f"the program of {head} does not compute what the float64 reference does: {wrong[0]}; nothing was written: "
            "please report it, and use the targets torch or flax meanwhile"
        )
    return {
        "against": "float64 reference",
        "shapes": shapes,
        "comparisons": len(result.rows),
        "largest_error": max(row.difference.max_abs for row in rows),
        "relative_error": max(row.difference.relative for row in rows),
    }


def _both(reference: Any, witness: ExportedWitness) -> dict[str, Any]:
    return {"reference": reference, witness.name: witness}


def padded(config: Any, batch: int, length: int) -> Inputs:
    """Texts of mixed lengths with their mask: the first fills the length, the second is padded in front, the others
    behind. One text alone is padded in front.
    """
    inputs = make_inputs(config, max(batch, 2), length, _SEED)
    inputs = inputs if batch > 1 else {name: x[1:] for name, x in inputs.items()}
    mask = (inputs["input_ids"] != config.pad_token_id).astype(np.int32)
    inputs["attention_mask"] = mask
    b = 1 if batch > 1 else 0
    missing = int(length - mask[b].sum())
    return {name: _moved(x, b, missing) for name, x in inputs.items()}


def _moved(x: np.ndarray, b: int, by: int) -> np.ndarray:
    moved = x.copy()
    moved[b] = np.roll(x[b], by)
    return moved
