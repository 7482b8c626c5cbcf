"""What faults are injected into: a model of one head with its inputs, from a seed or a folder, and its witnesses.

Legend: B batch, L length, D hidden, N heads.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from bigbird_port.families.family import Family, Step
from bigbird_port.families.registry import default_family
from bigbird_port.models.folder import read_model_folder
from bigbird_port.schema.initialise import initial_value
from bigbird_port.schema.table import Framework, weights_of
from bigbird_port.schema.weights import complete
from parity.checks.judged import check_judged
from parity.given.inputs import Inputs, default_length, for_head, make_inputs
from parity.run.conditions import Options, Pass
from parity.run.results import Condition, Result
from parity.run.walk import Walk
from parity.witnesses.with_reference import ReferenceWitness
from parity.witnesses.witness import make_witness as make

Weights = dict[str, np.ndarray]
FRAMEWORKS: tuple[Framework, ...] = ("torch", "flax")


@dataclass(frozen=True, eq=False)
class Setup:
    """One model and what it is run on: canonical float32 weights, and inputs as the head takes them."""

    name: str
    head: str
    config: Any  # of its family: a family's own faults read its own fields
    weights: Weights
    inputs: Inputs
    seed: int = 0

    @property
    def length(self) -> int:
        """Tokens of a text."""
        return int(self.inputs["input_ids"].shape[-1])


@dataclass(frozen=True)
class Case:
    """A small model that is drawn from a seed.

    length, batch: of its inputs. config: of the model. shrunk: what the first weights of the schema's modules are
    multiplied by.
    """

    length: int
    config: Any  # of its family: a family's own faults read its own fields
    batch: int = 2
    shrunk: Mapping[str, float] = field(default_factory=dict)


def cases_of(family: Family | None = None) -> dict[str, Case]:
    """Return the small models of a family (None: of the default one) by name."""
    module: Any = importlib.import_module(f"parity.faults.{(family or default_family()).name}.cases")
    cases: dict[str, Case] = module.CASES
    return cases


def make_setup(name: str, head: str, seed: int = 0, family: Family | None = None) -> Setup:
    """Draw a small model of ``cases_of`` for a head; family: None is the default one."""
    case = cases_of(family)[name]
    config = case.config.for_head(head)
    rng = np.random.default_rng([seed, *name.encode()])
    weights = {}
    for row in _rows(config, head):
        value = initial_value(row, config, seed)
        if row.init == "normal":
            value *= next((factor for start, factor in case.shrunk.items() if row.name.startswith(start)), 1.0)
        if row.init != "normal":  # all ones or zeros would hide what is left out or exchanged
            value = value + rng.normal(0, 0.2, value.shape).astype(np.float32)
        weights[row.name] = value
    return Setup(name, head, config, weights, own_inputs(config, head, case.batch, case.length, seed), seed)


def read_setup(out: Path, head: str, framework: Framework = "torch", seed: int = 0, batch: int = 2) -> Setup:
    """Read a model folder for a head, and draw inputs of its length from a seed.

    Raises ValueError as read_model_folder does.
    """
    folder = read_model_folder(out, framework)
    check_judged(folder.config.family, out)
    if folder.config.family is default_family() and folder.config.norm_type != "postnorm":
        raise ValueError(
            f"{out}: norm_type is {folder.config.norm_type}, and faults are made and searched for in postnorm models "
            f"alone: 'bigbird-port parity {out}' compares this one layer by layer"
        )
    config, weights = folder.config.for_head(head), Weights()
    for side in FRAMEWORKS:
        weights |= complete(folder.weights, config, head, side, seed)[0]
    inputs = own_inputs(config, head, batch, default_length(config), seed)
    return Setup(out.name, head, config, weights, inputs, seed)


def own_inputs(config: Any, head: str, batch: int, length: int, seed: int) -> Inputs:
    """Return seeded inputs as a head takes them: no token types where the model derives them from the question."""
    inputs = for_head(make_inputs(config, batch, length, seed), head, config)
    derives = config.family.heads[head].inputs == "question"
    return {name: x for name, x in inputs.items() if not derives or name != "token_type_ids"}


def _rows(config: Any, head: str) -> list[Any]:
    return list({row.name: row for side in FRAMEWORKS for row in weights_of(config, head, side)}.values())


def make_reference(setup: Setup) -> ReferenceWitness:
    """Build the float64 reference of a setup."""
    return cast(ReferenceWitness, make_witness("reference", setup))


def make_witness(name: str, setup: Setup) -> Any:
    """Build a witness of a setup, a framework's in float32 on the CPU."""
    return make(name, setup.config, setup.head, setup.weights)


class Remembered:
    """A reference that computes every stage once and remembers the result. It takes only streams that it returned."""

    def __init__(self, witness: Any) -> None:
        self._witness, self._known = witness, dict[tuple[Any, ...], Any]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._witness, name)

    def start(self, inputs: Inputs) -> Any:
        """Run the embeddings, or remember them."""
        key = ("start", *((name, x.tobytes()) for name, x in sorted(inputs.items())))
        return self._once(key, None, lambda: self._witness.start(inputs))

    def step(self, step: Step, stream: Any) -> Any:
        """Run a stage, or remember it."""
        return self._once((step.name, id(stream)), stream, lambda: self._witness.step(step, stream))

    def finish(self, stream: Any, positions: slice | None = None) -> Any:
        """Run the head, or remember it."""
        key = ("finish", id(stream), positions and (positions.start, positions.stop))
        return self._once(key, stream, lambda: self._witness.finish(stream, positions))

    def inject(self, stream: Any, x: np.ndarray) -> Any:
        """Put hidden states in, or remember the stream with these."""
        return self._once(("inject", id(stream), id(x)), (stream, x), lambda: self._witness.inject(stream, x))

    def write(self, inputs: Inputs, T: int, beams: int, alpha: float) -> Any:
        """Write, or remember what was written."""
        key = ("write", T, beams, alpha, *((name, x.tobytes()) for name, x in sorted(inputs.items())))
        return self._once(key, None, lambda: self._witness.write(inputs, T, beams, alpha))

    def inexact(self, dtype: str, seed: int) -> Remembered:
        """Return the same model in an arithmetic that rounds, which remembers as well."""
        make_inexact = self._witness.inexact
        found: Remembered = self._once(("inexact", dtype, seed), None, lambda: Remembered(make_inexact(dtype, seed)))
        return found

    def _once(self, key: tuple[Any, ...], stream: Any, compute: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = stream, compute()  # a stream that is kept keeps its id
        return self._known[key][1]


def walk(
    setup: Setup, witnesses: dict[str, Any], local: bool = True, until_located: bool = False, gradients: bool = False
) -> Result:
    """Compare witnesses of a setup, stage by stage, as a parity run does; a head that decodes token by token as well.

    until_located: whether to stop after the stage where a fault was located. Later stages are off because of it.
    gradients: whether they are compared as well.
    """
    options = Options(witnesses=tuple(witnesses), local=local, seed=setup.seed)
    B, L = setup.inputs["input_ids"].shape[0], setup.length
    condition = Condition(setup.name, B, L, f"seed {setup.seed}")
    result = Result(heads=[setup.head], conditions=[condition], witnesses=options.names)
    steps = Walk(options, Pass(condition, setup.inputs, setup.config), setup.head, setup.inputs, witnesses, result)
    for _ in steps.stages():
        if until_located and result.located:
            return result
    steps.head(steps.encoded())
    if setup.config.family.heads[setup.head].decodes and not (until_located and result.located):
        decoding: Any = importlib.import_module("parity.run.decoding")
        result.rows += decoding.compare_decoding(steps.scene, witnesses, setup.inputs)
    is_red = until_located and any(not row.passed for row in result.rows)
    if setup.config.family.heads[setup.head].writes and not is_red:
        writing: Any = importlib.import_module("parity.run.writing")
        found = list(writing.compare_writing(steps.scene, witnesses, setup.inputs, None))
        result.rows += [row for row in found if not isinstance(row, str)]
        result.leave_out(setup.head, *(sentence for sentence in found if isinstance(sentence, str)))
    if gradients and not is_red:
        backward: Any = importlib.import_module("parity.run.gradients")
        result.rows += backward.compare_gradients(steps.scene, witnesses, setup.config, setup.inputs, setup.seed)
    return result


def with_length(setup: Setup, length: int) -> Setup:
    """Return the setup on texts of another length."""
    B = setup.inputs["input_ids"].shape[0]
    return replace(setup, inputs=own_inputs(setup.config, setup.head, B, length, setup.seed))
