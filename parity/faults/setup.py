"""What faults are injected into: a model of one head with its inputs, from a seed or a folder, and its witnesses.

Legend: B batch, L length, D hidden, N heads.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.models.folder import read_model_folder
from bigbird_port.schema.initialise import initial_value
from bigbird_port.schema.table import Framework, weights_of
from bigbird_port.schema.weights import complete, to_framework
from parity.given.inputs import Inputs, default_length, for_head, make_inputs
from parity.reference.model import Reference
from parity.run.conditions import Options, Pass
from parity.run.results import Condition, Result
from parity.run.walk import Walk
from parity.witnesses.with_reference import ReferenceWitness
from parity.witnesses.witness import Setting

Weights = dict[str, np.ndarray]
FRAMEWORKS: tuple[Framework, ...] = ("torch", "flax")


@dataclass(frozen=True, eq=False)
class Setup:
    """One model and what it is run on: canonical float32 weights, and inputs as the head takes them."""

    name: str
    head: str
    config: BigBirdConfig
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

    length, batch: of its inputs. fields: of its configuration, where they differ from _SMALL.
    """

    length: int
    batch: int = 2
    fields: Mapping[str, Any] = field(default_factory=dict)


# Sharp attention (kernels half as wide again as keep activations at 1) and small embeddings, as trained ones are.
_SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 2080,
    "initializer_range": 1.5 * 32**-0.5,
    "block_size": 16,
    "num_random_blocks": 3,
    "num_labels": 3,
    "sep_token_id": 5,
}
# padded: shorter than the pattern, ends inside a block, and rescales; paper, long: the paper's plan, where a block may
# be listed twice; short: full attention.
CASES: dict[str, Case] = {
    "padded": Case(521, fields={"max_encoder_length": 560, "rescale_embeddings": True}),
    "paper": Case(1024, fields={"max_encoder_length": 1024, "num_hidden_layers": 1}),
    "long": Case(2048, 1, {"max_encoder_length": 2048, "num_hidden_layers": 1, "num_attention_heads": 2}),
    "short": Case(40),
}
_EMBEDDINGS = 0.02


def make_setup(name: str, head: str, seed: int = 0) -> Setup:
    """Draw a case of CASES for a head."""
    case = CASES[name]
    config = BigBirdConfig(**(_SMALL | dict(case.fields)))
    rng = np.random.default_rng([seed, *name.encode()])
    weights = {}
    for row in _rows(config, head):
        value = initial_value(row, config, seed)
        if row.name.startswith("embeddings.") and row.init == "normal":
            value *= _EMBEDDINGS / config.initializer_range
        if row.init != "normal":  # all ones or zeros would hide what is left out or exchanged
            value = value + rng.normal(0, 0.2, value.shape).astype(np.float32)
        weights[row.name] = value
    return Setup(name, head, config, weights, own_inputs(config, head, case.batch, case.length, seed), seed)


def read_setup(out: Path, head: str, framework: Framework = "torch", seed: int = 0, batch: int = 2) -> Setup:
    """Read a model folder for a head, and draw inputs of its length from a seed.

    Raises ValueError as read_model_folder does.
    """
    folder = read_model_folder(out, framework)
    weights: Weights = {}
    for side in FRAMEWORKS:
        weights |= complete(folder.weights, folder.config, head, side, seed)[0]
    inputs = own_inputs(folder.config, head, batch, default_length(folder.config), seed)
    return Setup(out.name, head, folder.config, weights, inputs, seed)


def own_inputs(config: BigBirdConfig, head: str, batch: int, length: int, seed: int) -> Inputs:
    """Return seeded inputs as a head takes them. Question answering gets no token types, because it derives them."""
    inputs = for_head(make_inputs(config, batch, length, seed), head, config)
    return {name: x for name, x in inputs.items() if head != "qa" or name != "token_type_ids"}


def _rows(config: BigBirdConfig, head: str) -> list[Any]:
    return list({row.name: row for side in FRAMEWORKS for row in weights_of(config, head, side)}.values())


def make_reference(setup: Setup) -> ReferenceWitness:
    """Build the float64 reference of a setup."""
    return ReferenceWitness(Reference.of(setup.config, setup.head, setup.weights))


def make_witness(framework: Framework, setup: Setup) -> Any:
    """Build a framework's witness of a setup, float32 on the CPU."""
    return {"torch": _torch, "flax": _flax}[framework](setup)


def _torch(setup: Setup) -> Any:
    from parity.witnesses.with_torch import TorchWitness

    models: Any = importlib.import_module("models_torch")
    model = getattr(models, HEADS[setup.head].class_name).from_config(setup.config)
    model.load_arrays(to_framework(setup.weights, setup.config, setup.head, "torch"))
    return TorchWitness(model.eval(), Setting())


def _flax(setup: Setup) -> Any:
    from parity.witnesses.with_flax import FlaxWitness, flax_device

    models: Any = importlib.import_module("models_flax")
    model = getattr(models, HEADS[setup.head].flax_class_name)(setup.config, _do_init=False)
    model.load_arrays(to_framework(setup.weights, setup.config, setup.head, "flax"))
    return FlaxWitness(model, Setting(), flax_device("cpu"))


class Remembered:
    """A reference that computes every stage once and remembers the result. It takes only streams that it returned."""

    def __init__(self, witness: ReferenceWitness) -> None:
        self._witness, self._known = witness, dict[tuple[Any, ...], Any]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._witness, name)

    def start(self, inputs: Inputs) -> Any:
        """Run the embeddings, or remember them."""
        key = ("start", *((name, x.tobytes()) for name, x in sorted(inputs.items())))
        return self._once(key, None, lambda: self._witness.start(inputs))

    def layer(self, i: int, stream: Any) -> Any:
        """Run layer i, or remember it."""
        return self._once(("layer", i, id(stream)), stream, lambda: self._witness.layer(i, stream))

    def finish(self, stream: Any, positions: slice | None = None) -> Any:
        """Run the head, or remember it."""
        key = ("finish", id(stream), positions and (positions.start, positions.stop))
        return self._once(key, stream, lambda: self._witness.finish(stream, positions))

    def _once(self, key: tuple[Any, ...], stream: Any, compute: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = stream, compute()  # a stream that is kept keeps its id
        return self._known[key][1]


def walk(setup: Setup, witnesses: dict[str, Any], local: bool = True, until_located: bool = False) -> Result:
    """Compare witnesses of a setup, stage by stage, as a parity run does; causal-lm token by token as well.

    until_located: whether to stop after the stage where a fault was located. Later stages are off because of it.
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
    if setup.head == "causal-lm" and not (until_located and result.located):
        decoding: Any = importlib.import_module("parity.run.decoding")
        result.rows += decoding.compare_decoding(steps.scene, witnesses, setup.inputs)
    return result


def with_length(setup: Setup, length: int) -> Setup:
    """Return the setup on texts of another length."""
    B = setup.inputs["input_ids"].shape[0]
    return replace(setup, inputs=own_inputs(setup.config, setup.head, B, length, setup.seed))
