"""One parity run: for every condition, all witnesses go through the model together, layer by layer.

Taps are measured as they arrive and dropped, so that a run needs little more memory than the models.
"""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bigbird_port.conversion.manifest import MANIFEST
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.family import Family
from bigbird_port.files.json_object import read_json_object
from bigbird_port.schema.table import weights_of
from parity.checks.drawn import Drawn, check_drawn
from parity.checks.environment import check_environment
from parity.checks.integrity import Check, check_integrity
from parity.checks.loaded import check_loaded
from parity.conditions.run import chosen, run_conditions
from parity.given.inputs import DERIVED, Inputs, for_head
from parity.measure.derived import MEASURED
from parity.run.asked import GRADIENTS, check_asked, check_done, left_out, undecided
from parity.run.conditions import Options, Pass, check_options, passes
from parity.run.decoding import compare_decoding
from parity.run.gradients import check_gradients, compare_gradients
from parity.run.results import Result
from parity.run.walk import Walk
from parity.run.writing import compare_writing
from parity.witnesses.with_golden import GoldenWitness
from parity.witnesses.witness import Source, Witness, load_witness

__all__ = ["Options", "run_parity"]

_COLLECTED = 1 << 26  # bytes


def run_parity(out: Path, heads: Sequence[str], options: Options) -> Result:
    """Compare the witnesses for every head of ``heads`` on the model in ``out``; raises ValueError for bad input."""
    check_options(options)
    chosen(options.conditions)
    result = Result(heads=list(heads), witnesses=options.names)
    if options.golden:
        _check_comparable(heads, options.golden.family)
    if (out / MANIFEST).is_file():
        result.checks = check_integrity(out)
    runs = [_Run(out, options, one, result) for one in passes(out, options)]
    for head in heads:
        runs[0].one.config.for_head(head)  # which says what a model cannot have
    check_asked(heads, [run.one for run in runs], options)
    for run in runs:
        run.check(heads)
    _note_environment(result, options)
    for run in runs:
        run.run(heads)
    patterns = [Drawn(run.one.config, run.one.pattern_length) for run in runs]
    patterns += run_conditions(out, unchanged(out, result), heads, options, result)
    result.checks.append(check_drawn(patterns))
    for head, what in undecided(result):
        result.leave_out(head, what)
    result.checks += check_done(result, options, runs[0].one.config.family)
    return result


def _note_environment(result: Result, options: Options) -> None:
    """Keep what the frameworks compute with; a precision that is not the one asked for fails the run."""
    devices = {name: setting.device for name, setting in options.settings.items()}
    on_torch = devices.get("torch") or devices.get("transformers", "")
    on_jax = devices.get("flax") or devices.get("sharded", "")
    entries = options.tolerances.entries.values() if options.tolerances else ()
    calibrated = {entry.device for entry in entries} - {MEASURED}
    found = check_environment(on_torch, on_jax, dtype=options.dtype, calibrated=calibrated)
    result.environment = dict(found.items)
    detail = "; ".join(f"{problem.name}: {problem.detail}" for problem in found.problems) or "as asked for"
    result.checks.append(Check("environment", found.passed, detail))


def _check_comparable(heads: Sequence[str], family: Family) -> None:
    for head in heads:
        if why := family.heads[head].unjudged:
            raise ValueError(
                f"a golden case cannot be compared for {head}: {why}; leave out --golden, or choose another head"
            )


def _is_large(config: BigBirdConfig, head: str) -> bool:
    """Whether to go through all of Python's objects, for half a second, is worth the memory of a model."""
    return 4 * sum(math.prod(row.shape(config)) for row in weights_of(config, head, "torch")) > _COLLECTED


def unchanged(out: Path, result: Result) -> Path:
    """Return what the reference reads: torch's files, unless these changed since convert and Flax's did not."""
    failed = {check.name.partition(" ")[0] for check in result.checks if not check.passed}
    changed = failed & {"torch", "flax"}
    return out / "flax" if changed == {"torch"} and (out / "flax").is_dir() else out


class _Run:
    """One pass over the heads; what it finds goes into ``result``."""

    def __init__(self, out: Path, options: Options, one: Pass, result: Result) -> None:
        self.out, self.options, self.one, self.result = out, options, one, result
        self.family = one.config.family
        result.conditions.append(one.condition)
        self.manifest = read_json_object(out / MANIFEST) if (out / MANIFEST).is_file() else None

    def check(self, heads: Sequence[str]) -> None:
        """Raise ValueError for what cannot be run, before anything is."""
        if self.options.gradients:
            for head in (head for head in heads if not GRADIENTS.why_not(self.family, head, self.one.condition.length)):
                config, settings = self.one.config.for_head(head), self.options.settings
                check_gradients(config, head, self._own_inputs(head), settings, self.options.tolerances)

    def run(self, heads: Sequence[str]) -> None:
        """Walk once for heads with the same inputs and configuration."""
        for group in self._groups(heads):
            encoder, encoded, walked = None, None, slice(0)
            for head in group:
                witnesses = self._load(head)
                loaded = check_loaded(head, witnesses, self.manifest)
                self._note(head, witnesses, loaded.checks)
                if self.one.word_factor != 1:
                    for witness in witnesses.values():
                        witness.scale_words(self.one.word_factor)
                walk = Walk(self.options, self.one, head, self._own_inputs(head), witnesses, self.result)
                if encoded is None or loaded.encoder != encoder:
                    begin = len(self.result.rows)
                    encoder, encoded = loaded.encoder, walk.layers()
                    walked = slice(begin, len(self.result.rows))
                else:
                    self._share(walked, head)
                walk.head(encoded)
                if self.options.gradients and not GRADIENTS.why_not(self.family, head, self.one.condition.length):
                    inputs, seed = walk.inputs, self.options.seed
                    self.result.rows += compare_gradients(walk.scene, witnesses, walk.config, inputs, seed)
                if self.options.decoding and self.family.heads[head].decodes:
                    self.result.rows += compare_decoding(walk.scene, witnesses, walk.inputs)
                if (self.options.decoding or self.options.golden) and self.family.heads[head].writes:
                    for found in compare_writing(walk.scene, witnesses, walk.inputs, self.options.golden):
                        if isinstance(found, str):
                            self.result.leave_out(head, found)
                        else:
                            self.result.rows.append(found)
                del witnesses, walk, loaded
                if _is_large(self.one.config, head):
                    gc.collect()  # a call's scopes refer to each other and hold the parameters, until they are found
                if encoded.in_portions and "jax" in sys.modules:
                    sys.modules["jax"].clear_caches()  # what it compiled: up to 60 MiB a head, which it never drops

    def _share(self, walked: slice, head: str) -> None:
        """Say in the rows of a walk that they stand for another head, too."""
        self.result.rows[walked] = [replace(row, shared_by=(*row.shared_by, head)) for row in self.result.rows[walked]]

    def _groups(self, heads: Sequence[str]) -> list[list[str]]:
        """Heads that run the same encoder on the same inputs, if their weights prove equal."""
        groups: dict[tuple[object, ...], list[str]] = {}
        for head in heads:
            inputs = self._own_inputs(head)
            own = head if self.family.heads[head].inputs in DERIVED else ""  # these change what they are given
            key = (own, self.one.config.for_head(head), *((name, x.tobytes()) for name, x in sorted(inputs.items())))
            groups.setdefault(key, []).append(head)
        return list(groups.values())

    def _own_inputs(self, head: str) -> Inputs:
        own = for_head(self.one.inputs, head, self.one.config)
        if self.family.heads[head].inputs == "question" and not (self.options.golden or self.options.inputs):
            # so that the token types which the model derives are compared as well
            own = {name: x for name, x in own.items() if name != "token_type_ids"}
        return own

    def _load(self, head: str) -> dict[str, Witness]:
        source = Source(self.out, head, self.one.condition.overrides, self.options.seed)
        settings, found = self.options.settings, dict[str, Witness]()
        for name in self.options.names:
            if name == "golden":
                assert self.options.golden is not None
                found[name] = GoldenWitness(self.options.golden, head, self.one.config.for_head(head))
            else:
                folder = unchanged(self.out, self.result) if name == "reference" else self.out
                found[name] = load_witness(name, replace(source, folder=folder), settings[name])
        return found

    def _note(self, head: str, witnesses: dict[str, Witness], checks: list[Check]) -> None:
        """Keep what was initialised, what golden tensors have no counterpart, and what was loaded."""
        self.result.checks += [check for check in checks if check not in self.result.checks]
        models = [witness for witness in witnesses.values() if witness.digests()]
        self.result.initialised[head] = models[-1].initialised if models else []
        for witness in witnesses.values():
            if isinstance(witness, GoldenWitness):
                self.result.leave_out(head, *witness.not_compared)
        self.result.leave_out(head, *left_out(head, self.one, self.options))
