"""What a condition runs with: one head's witnesses under one configuration, and rows from what they say.

Legend: B batch, C choices, L length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_port.models.folder import read_folder_config
from parity.given.inputs import Inputs, for_head
from parity.run.compare import Scene, compare
from parity.run.conditions import Options
from parity.run.results import Error, Row
from parity.users.user import USERS, User, users_of
from parity.witnesses.whole import run_whole
from parity.witnesses.witness import Dtype, Source, Taps, Witness, load_witness

TRUTH = "reference"


class Shelf:
    """The witnesses of the head and the configuration that were asked for last; loading again takes memory first."""

    def __init__(self, out: Path, reads: Path, options: Options) -> None:
        """reads: the folder that the reference reads."""
        self.out, self.reads, self.options = out, reads, options
        self._folders = {TRUTH: reads}
        self._key: tuple[Any, ...] = ()
        self._found: dict[str, Witness] = {}

    def witnesses(self, head: str, overrides: Mapping[str, Any]) -> dict[str, Witness]:
        """Return the reference and the frameworks that have users."""
        key = (head, tuple(sorted(overrides.items())))
        if key != self._key:
            self._found, self._key = {}, key
            settings = self.options.settings
            for name in (TRUTH, *(name for name in USERS if name in self.options.names)):
                source = Source(self._folders.get(name, self.out), head, overrides, self.options.seed)
                self._found[name] = load_witness(name, source, settings[name])
        return self._found


class Bench:
    """One head under one configuration. batch, length: of the inputs that were compared last, for the report."""

    def __init__(self, shelf: Shelf, name: str, head: str, overrides: Mapping[str, Any]) -> None:
        self.shelf, self.name, self.head, self.overrides = shelf, name, head, dict(overrides)
        self.options, self.seed = shelf.options, shelf.options.seed
        self.config: Any = read_folder_config(shelf.out, "torch").replace(**overrides).for_head(head)
        self.family = self.config.family
        self.own = self.family.heads[head]
        self.batch, self.length = 1, 1

    def under(self, **overrides: Any) -> Bench:
        """Return the same under further overrides."""
        return Bench(self.shelf, self.name, self.head, self.overrides | overrides)

    def with_users(self, users: list[User]) -> Bench:
        """Return the same with some of the users."""
        other = self.under()
        other.users, other.options = users, self.options
        return other

    def in_type(self, dtype: Dtype) -> Bench:
        """Return the same with both frameworks in another type."""
        options = replace(self.options, dtype=dtype)
        shelf = Shelf(self.shelf.out, self.shelf.reads, options)
        return Bench(shelf, self.name, self.head, self.overrides)

    def judged_as(self, dtype: Dtype) -> Bench:
        """Return the same, judged by what another type may be off."""
        other = self.with_users(self.users)
        other.options = replace(self.options, dtype=dtype)
        return other

    @property
    def witnesses(self) -> dict[str, Any]:
        """Every witness by name."""
        return self.shelf.witnesses(self.head, self.overrides)

    @property
    def reference(self) -> Any:
        """The witness that all others are compared with."""
        return self.witnesses[TRUTH]

    @cached_property
    def users(self) -> list[User]:
        """Who calls the frameworks."""
        return users_of(self.witnesses)

    @cached_property
    def rng(self) -> np.random.Generator:
        """Random numbers of the run's seed and this condition."""
        return np.random.default_rng([self.seed, *self.name.encode()])

    def own_inputs(self, inputs: Inputs) -> Inputs:
        """Shape inputs of texts for the head."""
        return for_head(inputs, self.head, self.config)

    def truth(self, inputs: Inputs) -> Taps:
        """Return every tap of the reference."""
        return run_whole(self.reference, inputs).taps

    def scene(self, inputs: Inputs) -> Scene:
        """Return what a comparison on these inputs is about; a mask of queries and keys hides no token."""
        ids = inputs["input_ids"]
        self.batch, self.length = len(ids), ids.shape[-1]
        mask = inputs.get("attention_mask", ids != self.config.pad_token_id)
        mask = mask if mask.ndim == ids.ndim else np.ones(ids.shape, bool)
        real_BL = np.broadcast_to(mask != 0, ids.shape).reshape(-1, ids.shape[-1])
        layers, settings = self.config.num_hidden_layers, self.options.settings
        return Scene(self.head, self.name, settings, real_BL, layers, self.options.tolerances, family=self.family)

    def rows(self, user: str, inputs: Inputs, value: Taps, truth: Taps, error: Error = "called") -> Iterator[Row]:
        """Yield a row for every tap of ``truth`` that has positions which count; ``value`` must have it."""
        scene, pair = self.scene(inputs), (user, TRUTH)
        wanted = {tap: x for tap, x in truth.items() if scene.holds(pair, error, tap, x)}
        found = {tap: x for tap, x in value.items() if tap in wanted}
        yield from compare(scene, pair, error, self.name, (found, wanted))

    def returned(self, taps: Taps) -> Taps:
        """Return those taps that a call of the head returns."""
        return {name: taps[name] for name in self.own.returned if name in taps}

    def hidden_taps(self) -> list[str]:
        """The taps that are hidden states, in the order in which a call returns them.

        Of the last layer a call returns what a stage behind it makes, where there is one.
        """
        steps = self.family.steps(self.config)[:-1]
        behind = steps[-1].number is None
        return [step.output for step in (*steps[:-2], steps[-1])] if behind else [step.output for step in steps]
