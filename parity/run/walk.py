"""One walk through a model: all witnesses advance together, and every stage is compared before the next.

Texts whose taps are large go through the layers some at a time, and large scores are computed some positions at a time.

Legend: B batch, L length, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from bigbird_port.families.family import Step
from parity.given.golden import derived_of_step, derived_scores, reported_hidden
from parity.given.inputs import DECODER_IDS, Inputs, choices_apart, portions
from parity.measure.losses import make_labels, why_no_loss
from parity.measure.rounding import Rounding
from parity.run.called import Called
from parity.run.compare import Scene, compare
from parity.run.conditions import Options, Pass
from parity.run.keep import keep_tensors
from parity.run.locate import Comparison, locate
from parity.run.results import Part, Result, Row
from parity.witnesses.witness import EXPORTED, FRAMEWORKS, TRUTHS, Taps, Witness, pairs

_TAPS_AT_ONCE = 1 << 25  # elements of a layer's taps, 256 MiB in float64: a text of 4096 tokens at base size
_SCORES_AT_ONCE = 1 << 23  # elements of a language model's scores, 64 MiB in float64


@dataclass(frozen=True, eq=False)
class Encoded:
    """What the layers made.

    hidden: hidden states [B, L, D] of each stepping witness. good: by pair, whether they agree. in_portions: whether
    some texts were taken at a time.
    """

    hidden: dict[str, np.ndarray]
    good: dict[tuple[str, str], bool]
    in_portions: bool


class Walk:
    """The witnesses of one head on one pass's inputs; rows and findings go into ``result``.

    part: the texts that the inputs are, where they are not all.
    """

    def __init__(
        self,
        options: Options,
        one: Pass,
        head: str,
        inputs: Inputs,
        witnesses: dict[str, Witness],
        result: Result,
        part: Part | None = None,
    ) -> None:
        self.options, self.one, self.inputs, self.witnesses, self.result = options, one, inputs, witnesses, result
        self.part = part
        self.config = one.config.for_head(head)
        self.family = self.config.family
        self.own, self.steps = self.family.heads[head], self.family.steps(self.config)
        self.scene = Scene(
            *(head, one.condition.name, options.settings, self._real(), self.config.num_hidden_layers),
            options.tolerances,
            family=self.family,
        )
        self.truth = next((name for name in TRUTHS if name in witnesses and witnesses[name].steps), None)
        # another table is of a device whose arithmetic only its measurements know: there it decides alone
        if self.truth and hasattr(witnesses[self.truth], "inexact") and options.tolerances is None:
            rounding = Rounding(witnesses[self.truth], self.inputs, options.dtype)
            self.scene = replace(self.scene, rounding=rounding)
        self.streams: dict[str, Any] = {}
        self.input_good: dict[tuple[str, str], bool] = {}
        self.rows_of_stage: dict[tuple[str, str], list[Row]] = {}

    def layers(self) -> Encoded:
        """Run and compare embeddings and layers, and return what they made."""
        found = []
        for walk in self._portions():
            for _ in walk.stages():
                pass
            found.append(walk.encoded())
        good = {pair: all(some.good[pair] for some in found) for pair in found[0].good}
        hidden = {name: np.concatenate([some.hidden[name] for some in found]) for name in found[0].hidden}
        return Encoded(hidden, good, in_portions=len(found) > 1)

    def stages(self) -> Iterator[None]:
        """Run and compare the first stage, then every other but the head's; may be left after any."""
        taps = {}
        for name, witness in self.witnesses.items():
            taps[name], self.streams[name] = witness.start(self.inputs)
        self.input_good = dict.fromkeys(pairs(tuple(self.witnesses)), True)
        if self.truth:
            self._reached(self.steps[0], taps[self.truth])
        self._compare(self.steps[0], taps, "it is computed from the ids", part=self.part)
        self._left()
        del taps
        yield
        for before, step in pairwise(self.steps[:-1]):
            self._step(step, before)
            yield

    def encoded(self) -> Encoded:
        """Return what the witnesses have reached."""
        stepping = {name: witness for name, witness in self.witnesses.items() if witness.steps}
        self._begin_stage(self.steps[-2].output)
        hidden = {name: witness.hidden(self.streams[name]) for name, witness in stepping.items()}
        return Encoded(hidden, self.input_good, in_portions=False)

    def head(self, encoded: Encoded) -> None:
        """Run and compare what follows the layers."""
        self.input_good = encoded.good
        for name, witness in self.witnesses.items():
            if name not in self.streams:
                self.streams[name] = witness.start(self.inputs)[1]
                if witness.steps:
                    self.streams[name] = witness.inject(self.streams[name], encoded.hidden[name])
        pieces = list(self._pieces())
        called = None
        if self.options.called:
            called = Called(self.scene.head, self.witnesses, self.inputs, in_pieces=pieces != [None])
        for positions in pieces:
            self._finish(positions, called)

    def _portions(self) -> Iterator[Walk]:
        """Yield this walk, or walks of some texts each. A witness that cannot be fed takes all texts at once."""
        inputs = choices_apart(self.inputs)
        tokens = _TAPS_AT_ONCE // (6 * self.config.hidden_size + self.config.intermediate_size)
        multiple = max(witness.multiple for witness in self.witnesses.values())
        found = list(portions(inputs, tokens, multiple))
        if len(found) == 1 or not all(witness.steps for witness in self.witnesses.values()):
            yield self
            return
        for texts, some in found:
            part = Part(texts=f"{texts.start}:{texts.stop}")
            yield Walk(self.options, self.one, self.scene.head, some, self.witnesses, self.result, part)

    def _step(self, step: Step, before: Step) -> None:
        """Run and compare one stage.

        The truth runs first. Every framework then runs on the truth's input, and at last on its own. Few taps are held
        at a time.
        """
        self._begin_stage(before.output)
        fed, taps = self._fed(), dict[str, Taps]()
        if self.truth:
            taps[self.truth], self.streams[self.truth] = self.witnesses[self.truth].step(step, self.streams[self.truth])
            self._reached(step, taps[self.truth], fed)
        for name, witness in self.witnesses.items():
            if fed is not None and self._runs_local(name):
                local = witness.step(step, witness.inject(self.streams[name], fed))[0]
                self._compare_local(name, step, local, taps[str(self.truth)], fed, self.part)
                del local
        if not self.options.keep:
            fed = None  # nothing else wants it, and it is as large as a tap
        if self.truth:
            self._reached(step, taps[self.truth])
        for name, witness in self.witnesses.items():
            if name not in taps:
                taps[name], self.streams[name] = witness.step(step, self.streams[name])
        if self.options.golden:
            for name in taps.keys() - {"golden"}:
                taps[name] |= derived_of_step(step, self.options.golden, self.config)
        self._compare(step, taps, "its input is within tolerance", fed, self.part)
        self._left()

    def _reached(self, step: Step, exact: Taps, fed: np.ndarray | None = None, positions: slice | None = None) -> None:
        """Tell what measures rounding which stage is compared, and what the truth computed there."""
        if self.scene.rounding:
            self.scene.rounding.at(step, exact, fed, positions)

    def _left(self) -> None:
        """Let what measures rounding drop a stage, whose taps are as large as a layer's."""
        if self.scene.rounding:
            self.scene.rounding.leave()

    def _fed(self) -> np.ndarray | None:
        """The truth's hidden states, to feed to the frameworks."""
        return self.witnesses[self.truth].hidden(self.streams[self.truth]) if self.truth else None

    def _begin_stage(self, output: str) -> None:
        """Note for every pair whether the stage's input, the tap ``output`` of the stage before, was good."""
        for pair in self.input_good:
            rows = self.rows_of_stage.get(pair, [])
            of_output = [row for row in rows if row.tap == output and row.attention_head is None]
            self.input_good[pair] = all(row.passed for row in of_output or rows)
        self.rows_of_stage = {}

    def _runs_local(self, name: str) -> bool:
        return self.options.local and self.truth is not None and name in FRAMEWORKS

    def _finish(self, positions: slice | None, called: Called | None) -> None:
        """Run and compare the head on all positions or on some; then its loss, and what a call returned there."""
        part = Part(positions=f"{positions.start}:{positions.stop}") if positions else None
        fed = self._fed()
        taps: dict[str, Taps] = {}
        for name, witness in self.witnesses.items():
            taps[name] = self._of_piece(witness.finish(self.streams[name], positions), positions)
            if name == self.truth:
                self._reached(self.steps[-1], taps[name], fed, positions)
            if fed is not None and self._runs_local(name):
                local = witness.finish(witness.inject(self.streams[name], fed), positions)
                truth = taps[str(self.truth)]
                self._compare_local(name, self.steps[-1], self._of_piece(local, positions), truth, fed, part)
        self._losses(taps, positions, part)
        if self.options.golden:
            for name in taps.keys() - {"golden"}:
                taps[name] |= derived_scores(taps[name], self.options.golden, self.scene.head)
                if self.witnesses[name].steps and (reported := reported_hidden(self.config)):
                    taps[name][reported] = self.witnesses[name].hidden(self.streams[name])
        self._compare(self.steps[-1], taps, "the last layer's output is within tolerance", fed, part)
        if called:
            self.result.rows += called.rows(self.scene, taps, self.streams, positions, part)
        self._left()

    def _pieces(self) -> Iterator[slice | None]:
        """Positions to score at once: a language model's scores of a long text are larger than the model."""
        B, L = self.scene.real_BL.shape
        if DECODER_IDS in self.inputs:
            L = self.inputs[DECODER_IDS].shape[-1]
        step = max(2, _SCORES_AT_ONCE // (B * self.config.vocab_size))
        if not self.own.scores_every_token or self.options.golden or step >= L:
            yield None
            return
        if not all(witness.steps or name in EXPORTED for name, witness in self.witnesses.items()):
            yield None
            return
        # the last piece takes one position more rather than leave a single one, which has no next token
        starts = [a for a in range(0, L, step) if L - a > 1]
        for a, b in zip(starts, [*starts[1:], L], strict=True):
            yield slice(a, b)

    def _of_piece(self, taps: Taps, positions: slice | None) -> Taps:
        """The taps of a piece of the positions; those of a whole text are in the first piece."""
        if positions is None or positions.start == 0:
            return taps
        return {name: tap for name, tap in taps.items() if self.scene.place(name).tap.has_tokens}

    def _compare(
        self, step: Step, taps: dict[str, Taps], evidence: str, fed: np.ndarray | None = None, part: Part | None = None
    ) -> None:
        """Compare all pairs on what each computed from its own input."""
        for pair in pairs(tuple(taps)):
            sides = taps[pair[0]], taps[pair[1]]
            incomplete = not self.witnesses[pair[0]].complete, not self.witnesses[pair[1]].complete
            if step == self.steps[-1] and not self.own.taps and not any(sides):
                continue  # a head of no taps: its hidden states are a stage's
            if pair[0] in EXPORTED and step != self.steps[-1] and not sides[0]:
                continue  # a program shows no stage but what it returns
            if not (step.number is None and incomplete[1] and not sides[1]):
                rows = list(compare(self.scene, pair, "accumulated", step.name, sides, incomplete, part))
                self.rows_of_stage[pair] = rows
                found = Comparison(self.scene, pair, "accumulated", rows, sides, self.input_good[pair], evidence)
                self._record(found, fed, locates=self._locates(pair, step))

    def _locates(self, pair: tuple[str, str], step: Step) -> bool:
        """Whether this comparison should say where a fault starts. A local one and one with a truth say it better."""
        has_local = self._runs_local(pair[0]) and pair[1] == self.truth and step != self.steps[0]
        has_truth = any(name in TRUTHS for name in self.witnesses)
        if pair[0] in EXPORTED:  # of whose stages nothing is known
            return False
        return not has_local and (pair[1] in TRUTHS or not has_truth)

    def _compare_local(
        self, name: str, step: Step, local: Taps, truth: Taps, fed: np.ndarray | None, part: Part | None = None
    ) -> None:
        pair = (name, str(self.truth))
        if step == self.steps[-1] and not self.own.taps and not local and not truth:
            return
        rows = list(compare(self.scene, pair, "local", step.name, (local, truth), part=part))
        evidence = f"its input was the {self.truth}'s own"
        self._record(Comparison(self.scene, pair, "local", rows, (local, truth), True, evidence), fed, locates=True)

    def _record(self, stage: Comparison, fed: np.ndarray | None, locates: bool) -> None:
        self.result.rows += stage.rows
        findings = list(locate(stage, self.config)) if locates and not all(row.passed for row in stage.rows) else []
        known = {(f.condition, f.value, f.tap) for f in self.result.located if stage.scene.head in (f.head,)}
        self.result.located += [f for f in findings if (f.condition, f.value, f.tap) not in known]
        if findings and self.options.keep and not self.result.kept:
            self.result.kept = keep_tensors(self.options.keep, stage, findings[0], fed)

    def _losses(self, taps: dict[str, Taps], positions: slice | None, part: Part | None) -> None:
        head = self.scene.head
        L = self.scene.real_BL.shape[1]
        if not self.options.losses or why_no_loss(self.own, L):
            return  # what left_out says, parity/run/asked.py
        if not self._judges_losses():
            self.result.leave_out(head, f"loss (no tolerance for {self.options.dtype})")
            return
        labels = make_labels(self.config, head, self.inputs, self.options.seed)
        if positions is not None:
            labels = {"labels": labels["labels"][:, positions]} | (
                {name: x for name, x in labels.items() if name != "labels"} if positions.start == 0 else {}
            )
        values = {
            name: {"loss": np.array(self.witnesses[name].loss(scores, labels))}
            for name, scores in taps.items()
            if self.witnesses[name].complete or name in EXPORTED
        }
        if len(values) < 2:
            self.result.leave_out(head, f"loss (only {', '.join(values) or 'no witness'} computes one)")
        if self.scene.rounding and self.truth in values:
            self.scene.rounding.at_loss(labels, float(values[self.truth]["loss"]))
        for pair in pairs(tuple(values)):
            sides = values[pair[0]], values[pair[1]]
            self.result.rows += compare(self.scene, pair, "loss", "loss", sides, part=part)

    def _judges_losses(self) -> bool:
        """Whether the table has a tolerance of the loss. In half precision it may have none."""
        for pair in pairs(tuple(self.witnesses)):
            try:
                self.scene.tolerance(pair, "loss", "loss")
            except ValueError:
                return False
        return True

    def _real(self) -> np.ndarray:
        """True on tokens that are no padding, [B, L]; a mask of queries and keys hides no token."""
        ids = self.inputs["input_ids"]
        mask = self.inputs.get("attention_mask", ids != self.config.pad_token_id)
        mask = mask if mask.ndim == ids.ndim else np.ones(ids.shape, bool)
        return np.broadcast_to(mask != 0, ids.shape).reshape(-1, ids.shape[-1])
