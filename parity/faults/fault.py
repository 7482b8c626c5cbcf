"""What a fault is: how it is put into a framework, and the same into the float64 reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from bigbird_port.families.family import Family, Head
from bigbird_port.families.registry import default_family, family_of
from bigbird_port.schema.table import Framework
from parity.faults.inject import InReference, Wrap, in_twin
from parity.faults.setup import Setup, Weights
from parity.given.inputs import Inputs

WeightFault = Callable[[Weights, Any], Weights]
ConfigFault = Callable[[Setup], dict[str, Any]]
InputFault = Callable[[Inputs, Setup], Inputs]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault. Exactly one of the fields from ``weights`` to ``witness`` says how it is injected.

    ========== ================================================================================================
    name       what the command line calls it
    expected   the first tap that should show it; {last} is the last layer, {score} the first score of a call
    touches    whether it can touch the models of a head
    case       the small model (parity/faults/setup.py) that has what the fault needs
    weights    returns the weights that the faulty framework is given
    config     returns the fields of the configuration that are changed
    inputs     returns the inputs that the faulty framework is given
    labels     returns the labels that the faulty framework is given
    twin       (path, wrapper) pairs: functions of the framework's code that are wrapped while the fault is held
    witness    changes the witness itself
    reference  for ``twin``: the same fault in the reference's code
    always     for a fault that the reference cannot be given: why it changes every model that it touches
    holds      for ``always``: whether the reason holds for a setup
    family     whose models it is put into
    backward   it shows in gradients alone
    ========== ================================================================================================
    """

    name: str
    expected: str
    touches: Callable[[Head], bool] = lambda head: True
    case: str = "padded"
    weights: WeightFault | None = None
    config: ConfigFault | None = None
    inputs: InputFault | None = None
    labels: Callable[[Any], Any] | None = None
    twin: tuple[tuple[str, Wrap], ...] = ()
    witness: Callable[[Any, Setup], None] | None = None
    reference: InReference | None = None
    always: str = ""
    family: Family = field(default_factory=default_family)
    backward: bool = False
    holds: Callable[[Setup], bool] = lambda setup: True

    @property
    def heads(self) -> frozenset[str]:
        """The heads whose models it can touch, of what stands for its family now."""
        family = family_of(self.family.model_type)
        return frozenset(head.name for head in family.heads.values() if self.touches(head))

    @property
    def how(self) -> str:
        """What the fault is injected into: weights, configuration, or code."""
        return "weights" if self.weights else "configuration" if self.config else "code"

    @property
    def what(self) -> str:
        """The fault in one sentence."""
        parts = (self.weights, self.config, self.inputs, self.labels, self.witness)
        function = next((part for part in parts if part), None) or self.twin[0][1]
        return (function.__doc__ or "").partition("\n")[0]

    def expects(self, setup: Setup) -> str:
        """Return the first tap that should show the fault in a setup."""
        family = setup.config.family
        scores = [tap.name for tap in family.heads[setup.head].taps if tap.scores]
        first = "*logits" if scores else family.hidden
        return self.expected.format(last=setup.config.num_hidden_layers - 1, score=first)

    def applied(self, setup: Setup) -> Setup:
        """Return the setup with the fault's weights and configuration. ``feed`` changes inputs and labels."""
        if self.weights:
            return replace(setup, weights=self.weights(dict(setup.weights), setup.config))
        return replace(setup, config=setup.config.replace(**self.config(setup))) if self.config else setup

    def feed(self, witness: Any, setup: Setup) -> None:
        """Give a witness (of a framework or the reference) the fault's inputs, labels or own change."""
        change, labels = self.inputs, self.labels
        if change:
            start = witness.start
            witness.start = lambda inputs: start(change(inputs, setup))
        if labels:
            loss = witness.loss
            witness.loss = lambda scores, given: loss(scores, labels(given))
        if self.witness:
            self.witness(witness, setup)

    @contextmanager
    def in_twin(self, framework: Framework) -> Iterator[None]:
        """Keep the fault in a framework's code while the context lasts."""
        with ExitStack() as stack:
            for path, wrap in self.twin:
                stack.enter_context(in_twin(path, wrap)(framework))
            yield

    def in_reference(self) -> AbstractContextManager[Any]:
        """Keep the same fault in the reference's code while the context lasts."""
        return self.reference() if self.reference else ExitStack()
