"""What a checkpoint holds beside weights: optimizer slots, counters, moving averages, and why each is ignored."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from bigbird_port.families.family import Family

MOVING_AVERAGE = "/ExponentialMovingAverage"  # what TensorFlow appends to a variable's name
AVERAGED = "moving average (--ema takes it instead of the weight)"

# Names that are not weights: pattern of the whole name, reason. {slot}: the group "slot".
IGNORED: tuple[tuple[str, str], ...] = (
    (r".+/(?P<slot>(AdamWeightDecayOptimizer|Adam|adam_m|adam_v)(_\d+)?)", "optimizer slot {slot}"),
    (r".+/(?P<slot>Adafactor\w*)", "optimizer slot {slot}"),
    (r"(.+/)?\.OPTIMIZER_SLOT/(?P<slot>.+)", "optimizer slot {slot}"),
    (rf".+{MOVING_AVERAGE}", AVERAGED),
    (r"(.+/)?beta[12]_power", "optimizer state"),
    (r"(.+/)?(_?optimi[sz]er\w*|opt_state|adam\w*|adagrad|lamb|rmsprop|sgd)/.+", "optimizer state"),
    (r"_all_variables/\d+", "second copy that Keras exports"),
    (r"(global_step|save_counter)(/\.ATTRIBUTES/VARIABLE_VALUE)?", "training step counter"),
    (r"_CHECKPOINTABLE_OBJECT_GRAPH", "bookkeeping of the saver"),
)


def ignored_reason(family: Family, name: str) -> str | None:
    """Why a variable is not a weight, as far as its name alone tells; None if it may be one."""
    if name.removeprefix(f"{family.prefix}.") in family.buffers:
        return "buffer that old releases of transformers saved"
    for pattern, reason in IGNORED:
        if found := re.fullmatch(pattern, name):
            return reason.format(**found.groupdict())
    return None


def state_reason(name: str, shapes: Mapping[str, tuple[int, ...]], is_weight: Callable[[str], bool]) -> str | None:
    """Why a name that means no weight is training state, as its shape and its neighbours tell; None if it is not.

    NAME/X is an optimizer's slot X where NAME is a weight and X has NAME's shape, or that shape without one axis, as
    factored optimizers keep it, or one value. A single value beside the weights is a counter or a scale.
    """
    weight = name
    while weight := weight.rpartition("/")[0]:
        if weight in shapes and is_weight(weight):
            if _is_slot(shapes[name], shapes[weight]):
                return f"optimizer slot {name[len(weight) + 1 :]}"
            return None
    return f"training state ({name})" if shapes[name] == () else None


def _is_slot(shape: tuple[int, ...], of: tuple[int, ...]) -> bool:
    factors = [of[:axis] + of[axis + 1 :] for axis in range(len(of))]
    return shape == of or shape in factors or math.prod(shape) == 1


_OPTIMIZER_PARTS = re.compile(r"opt|opt_state|optim|_?optimi[sz]er\w*|grads?|gradients?|mu|nu|trace|lr_schedulers?")


def state_of_part(name: str) -> str | None:
    """The part of a name that says it belongs to an optimizer, None if none does.

    Not where "target" follows: old releases of Flax kept the weights in the optimizer.
    """
    parts = re.split(r"[./]", name)
    for part, follower in zip(parts, [*parts[1:], ""], strict=True):
        if _OPTIMIZER_PARTS.fullmatch(part) and follower != "target":
            return part
    return None
