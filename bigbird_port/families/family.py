"""What a family of models says of itself: its taps, its heads, and how the names of both are read."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from bigbird_port.families.configuration import Configuration
from bigbird_port.families.losses import LossTerm, Original
from bigbird_port.families.place import LAYER, Place
from bigbird_port.schema.reading.style import Style, StyleName
from bigbird_port.schema.table import EVERY, Framework, Weight

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
Infer = Callable[[Mapping[str, int], int, Collection[str], Mapping[str, Any]], dict[str, Any]]
Flags = Callable[[Any, str | None], tuple[dict[str, Any], list[str]]]


@dataclass(frozen=True)
class Tap:
    """One place in a model where two computations can be compared.

    name: with "{i}" for the number of a layer. axes: their names, in order, separated by spaces. module: canonical name
    of the module that computes it (weights of the schema begin with it). sources: the taps of the same stage that it
    is computed from; none where it is computed from what goes into the stage. kind: taps of one kind share a
    tolerance. torch, flax: path of the module whose output it is, within the base model or the layer ("<" before it:
    whose input it is); empty where no module shows it. exact: why it is equal or wrong; empty where it may differ by
    rounding. scores: a head returns it. distribution: its last axis holds scores of which a softmax is taken.
    penalised: from some of its elements a penalty was taken, which hides their rounding. by_head: each attention head
    is compared by itself as well. when: (configuration field, value) of the models that have it; None: all.
    terms: of a layer's tap, those of whose size the terms are that its gradient is a difference of. rows: those whose
    gradients at a position tell the size of this one's there. bias: the weight that is added last.
    golden: what golden cases call it, where that is not its name.
    """

    name: str
    axes: str
    module: str
    sources: tuple[str, ...] = ()
    kind: str = ""
    torch: str = ""
    flax: str = ""
    exact: str = ""
    scores: bool = False
    distribution: bool = False
    penalised: bool = False
    by_head: bool = False
    when: tuple[str, str] | None = None
    terms: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    bias: str = ""
    golden: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The axes."""
        return tuple(self.axes.split())

    def has(self, axis: str) -> bool:
        """Whether it has an axis."""
        return axis in self.names

    @property
    def has_tokens(self) -> bool:
        """Whether it has something for each token of a text, or of what a decoder reads."""
        return self.has("length") or self.has("summary")

    def exists(self, config: Any) -> bool:
        """Whether a model of this configuration has it."""
        return self.when is None or getattr(config, self.when[0]) == self.when[1]

    @property
    def last_name(self) -> str:
        """The name without a layer before it."""
        return self.name.rpartition(".")[2] if f"{LAYER}." in self.name else self.name


@dataclass(frozen=True)
class Head:
    """One task head.

    name: as typed after ``--head``. class_name: the torch class (Flax: the same with ``Flax`` before it). taps: what is
    computed after the layers, in order; the scores have ``scores``. losses: its terms; none where ``no_loss`` says
    why there is no loss. labels: which are drawn for it, a name of parity.measure.losses.MAKERS. aliases: other names
    that ``--head`` accepts. inputs: how its inputs are shaped: "texts", "choices" (several texts each), "question"
    (a text of two parts, whose token types the model derives), "summaries" (a decoder reads something beside the text),
    or "ended" (texts with an end-of-sequence token). decodes: it can be run token by token, with a cache. writes:
    taps of what it writes as the original does: greedily, by a beam search, and the scores of the beams.
    original: what golden cases hold of it. unjudged: why no golden case can be compared with it, else empty.
    settings: fields of the configuration under which the head always runs, none of which is the size of a weight;
    settings_note says it in words.
    packages: modules where its classes are, reference: module of its float64 reference; empty: those of its family.
    schedule: of the original's run that trains it: "linear" or "rsqrt".
    """

    name: str
    class_name: str
    taps: tuple[Tap, ...]
    losses: tuple[LossTerm, ...]
    labels: str
    aliases: tuple[str, ...] = ()
    inputs: str = "texts"
    no_loss: str = ""
    decodes: bool = False
    writes: tuple[str, ...] = ()
    original: tuple[Original, ...] = ()
    unjudged: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    settings_note: str = ""
    packages: Mapping[Framework, str] = field(default_factory=dict)
    reference: str = ""
    schedule: str = "linear"

    def __post_init__(self) -> None:
        """Raise ValueError for a head that neither has a loss nor says why."""
        if bool(self.losses) == bool(self.no_loss):
            raise ValueError(f"the head {self.name} has {len(self.losses)} losses: give some, or say why in no_loss")

    @property
    def flax_class_name(self) -> str:
        """The Flax class, as transformers names it."""
        return f"Flax{self.class_name}"

    @property
    def called(self) -> tuple[str, ...]:
        """Every name that means it."""
        return (self.name, self.class_name, self.flax_class_name, *self.aliases)

    def tap(self, name: str) -> Tap | None:
        """Return the tap of this name after the layers; None if there is no such."""
        return next((tap for tap in self.taps if tap.name == name), None)

    @property
    def returned(self) -> tuple[str, ...]:
        """The names of the scores that a call of the model returns, or of what else it returns where it has none."""
        return tuple(tap.name for tap in self.taps if tap.scores) or tuple(tap.name for tap in self.taps)

    @property
    def scores_every_token(self) -> bool:
        """Whether some scores are one for each token and word, and larger than the model for long texts."""
        return any(tap.has_tokens and tap.has("vocabulary") for tap in self.taps)

    @property
    def is_penalised(self) -> bool:
        """Whether a large penalty is taken from some scores."""
        return any(tap.penalised for tap in self.taps)


@dataclass(frozen=True)
class Stage:
    """A stretch of the computation. All witnesses run it and are compared before the next one begins.

    name: with "{i}" where several follow one another, as many as the configuration's field ``count`` says. taps: what
    is compared, in order; none where these are the head's. output: the tap that the next stage takes; empty: none does.
    when: (configuration field, value) of the models that have it; None: all.
    """

    name: str
    taps: tuple[Tap, ...] = ()
    output: str = ""
    count: str = ""
    when: tuple[str, Any] | None = None

    def steps(self, config: Any) -> Iterator[Step]:
        """Yield the steps that a model of this configuration takes in it."""
        if self.when is not None and getattr(config, self.when[0]) != self.when[1]:
            return
        for number in range(getattr(config, self.count)) if self.count else (None,):
            yield Step(self, number)


@dataclass(frozen=True)
class Step:
    """One stage of a model of some size. number: which of several, counted from 0; None: it is the only one."""

    stage: Stage
    number: int | None

    @property
    def index(self) -> int:
        """The number; raises ValueError where there is none."""
        if self.number is None:
            raise ValueError(f"the stage {self.stage.name} is the only one of its kind: it has no number")
        return self.number

    @property
    def name(self) -> str:
        """Such as layer.3."""
        return self.stage.name.replace(LAYER, str(self.number))

    @property
    def output(self) -> str:
        """Full name of the tap that the next step takes."""
        return self.stage.output.replace(LAYER, str(self.number))


@dataclass(frozen=True, eq=False)
class Family:
    """One family of models.

    name: as code calls it; title: as people do. model_type: as config.json does. config: class of its configurations.
    infer: settings that a source without a configuration tells, from the sizes of its axes, the number of its layers,
    the canonical names that it holds, and the conditions of their rows. told: those which variables tell for certain,
    so that a configuration must say the same. untold: fields that nothing tells.
    shown: fields that inspect shows. judged: whether parity has a reference of the family.
    flags: values of the JSON beside a checkpoint of the original, given a configuration and the name of a vocabulary,
    and what they cannot express, in sentences; flags_file: its name.
    heads: by name. base: the head that is the base model; bare: whose model a source holds that has no head's own
    weights; prefix: what the base model is called within a model of another head.
    packages: where the classes of each framework are. rows: of the schema. axes: the size of each axis of the schema,
    a field of the configuration or a number. styles: how each kind of source spells the rows.
    anchor: canonical name of the weight that every model has and that shows where a source holds one. positions:
    canonical name of the position embeddings. scope: what the original calls its scope, where a model of some
    configuration is written anew.
    part: canonical name of a module without which the base model can be built; empty: there is none.
    tokenizer: the slow class of its tokenizers.
    buffers: names in torch that old releases saved though they are no weights.
    stages: of the computation, in order. whole: what is not computed stage by stage, but returned or reported beside
    it. hidden: the one of these that a call of the base model returns as its hidden states.
    """

    name: str
    title: str
    model_type: str
    config: type[Configuration]
    infer: Infer
    flags: Flags
    flags_file: str
    shown: tuple[str, ...]
    judged: bool
    told: tuple[str, ...]
    untold: tuple[str, ...]
    heads: Mapping[str, Head]
    base: str
    bare: str
    prefix: str
    packages: Mapping[Framework, str]
    rows: tuple[Weight, ...]
    axes: Mapping[str, str | int]
    styles: Mapping[StyleName, Style]
    anchor: str
    positions: str
    scope: Callable[[Any], str]
    part: str
    tokenizer: str
    buffers: tuple[str, ...]
    stages: tuple[Stage, ...]
    whole: tuple[Tap, ...]
    hidden: str
    inputs: tuple[str, ...]

    @cached_property
    def schema(self) -> tuple[Weight, ...]:
        """The rows, each with the names of all heads that own it."""
        every = frozenset(self.heads)
        return tuple(replace(row, heads=every) if row.heads == EVERY else row for row in self.rows)

    @cached_property
    def optional(self) -> frozenset[str]:
        """Canonical names of what a base model can be built without."""
        return frozenset(row.name for row in self.schema if self.part and row.name.startswith(f"{self.part}."))

    @cached_property
    def anchor_rows(self) -> tuple[Weight, ...]:
        """The rows of the anchor: one, or several that exclude one another."""
        return tuple(row for row in self.schema if row.name == self.anchor)

    @property
    def anchor_row(self) -> Weight:
        """The first of them."""
        return self.anchor_rows[0]

    def head(self, name: str) -> Head:
        """Return the head of this name; raises ValueError where the family has none."""
        if name not in self.heads:
            raise ValueError(f"{self.title} has no head {name!r}: expected one of {', '.join(self.heads)}")
        return self.heads[name]

    def find_head(self, name: str) -> Head | None:
        """Return the head of this name, alias, torch class or Flax class; None if there is no such."""
        return next((head for head in self.heads.values() if name in head.called), None)

    def model_class(self, head: str, framework: Framework) -> Any:
        """Return the class of a head in a framework; the framework is imported for it."""
        own = self.heads[head]
        name = own.class_name if framework == "torch" else own.flax_class_name
        return getattr(importlib.import_module(own.packages.get(framework) or self.packages[framework]), name)

    @property
    def embeddings(self) -> tuple[Tap, ...]:
        """The taps of the first stage."""
        return self.stages[0].taps

    @cached_property
    def layer(self) -> tuple[Tap, ...]:
        """The taps of the stages of which there are several."""
        return tuple(tap for stage in self.stages if stage.count for tap in stage.taps)

    def steps(self, config: Any) -> list[Step]:
        """Return the steps of a model of this configuration, in order."""
        return [step for stage in self.stages for step in stage.steps(config)]

    def place(self, name: str, head: str = "") -> Place | None:
        """Return the tap with a full name, such as layer.3.query, in a head (none: in any); None if there is no such.

        A gradient, grad.<tap>, has the axes of its tap.
        """
        name = name.removeprefix("grad.")
        number = _NUMBER.search(name)
        template = _NUMBER.sub(LAYER, name, count=1)
        tap = self._of_head.get((head, template)) or (None if head else self._of_any_head.get(template))
        tap = tap or self._common.get(template)
        return None if tap is None else Place(tap, int(number[0]) if number else None)

    def is_after_layers(self, name: str) -> bool:
        """Whether a tap is of what follows the layers, as every tap is that is of no layer and no embeddings."""
        place = self.place(name)
        return place is None or (place.layer is None and place.tap not in self.embeddings)

    def own_name(self, name: str) -> str:
        """Return a tap's name without the layer before it, whether or not the table has it."""
        before, number, own = _NUMBER.sub(LAYER, name, count=1).partition(f"{LAYER}.")
        return own if number and before in {tap.name.partition(LAYER)[0] for tap in self.layer} else name

    def order(self, name: str) -> float:
        """Where a tap stands in the order of the computation, its layer aside; scores and others come last."""
        return self._order.get(name, float("inf"))

    def of_layer(self, name: str) -> Tap | None:
        """Return the tap of a layer by its name within the layer."""
        return next((tap for tap in self.layer if tap.last_name == name), None)

    @cached_property
    def outside(self) -> tuple[Tap, ...]:
        """The taps that are in no layer: before, between and after, of all heads."""
        of_heads = {tap.name: tap for head in self.heads.values() for tap in head.taps}
        return (*self._of_stages, *of_heads.values())

    @cached_property
    def taps(self) -> tuple[Tap, ...]:
        """Every tap: of the stages, of all heads, and of the whole."""
        return (*self.layer, *self.outside, *self.whole)

    @property
    def _of_stages(self) -> tuple[Tap, ...]:
        """The taps of the stages of which there is one each, but the heads'."""
        return tuple(tap for stage in self.stages if not stage.count for tap in stage.taps)

    @cached_property
    def _common(self) -> dict[str, Tap]:
        return {tap.name: tap for tap in (*self._of_stages, *self.layer, *self.whole)}

    @cached_property
    def _of_head(self) -> dict[tuple[str, str], Tap]:
        return {(head.name, tap.name): tap for head in self.heads.values() for tap in (*head.taps, *_reported(head))}

    @cached_property
    def _of_any_head(self) -> dict[str, Tap]:
        return {name: tap for (_, name), tap in self._of_head.items()}

    @cached_property
    def _order(self) -> dict[str, int]:
        names = [tap.last_name for tap in self._all() if not tap.scores]
        return {name: i for i, name in enumerate(dict.fromkeys(names))}

    def _all(self) -> Iterator[Tap]:
        yield from (*self._of_stages, *self.layer)
        for head in self.heads.values():
            yield from head.taps


def _reported(head: Head) -> Iterator[Tap]:
    """The taps that golden cases hold of a head's scores."""
    for original in head.original:
        scores = next(tap for tap in head.taps if tap.name == original.scores)
        axes = " ".join(name for name in scores.names if not (original.smoothed and name == "vocabulary"))
        yield Tap(original.log_probs, axes, scores.module, (scores.name,), "log_probs")
        for name in original.smoothed or (original.loss,):
            yield Tap(name, "terms", scores.module, (original.log_probs,), "loss")
