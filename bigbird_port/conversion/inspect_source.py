"""Look into any source of weights: what it is, what its names mean, and what its values give away."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from bigbird_port.conversion.source import Source, find_part, open_source
from bigbird_port.conversion.values.canonical import for_each
from bigbird_port.conversion.values.content import Finding, check_contents
from bigbird_port.conversion.values.statistics import Statistics
from bigbird_port.families.configuration import Configuration
from bigbird_port.families.registry import default_family
from bigbird_port.files.json_object import read_json_object
from bigbird_port.formats.open_store import Opened, open_store
from bigbird_port.formats.passed_over import passed_over, passed_over_note
from bigbird_port.formats.store import Store
from bigbird_port.schema.reading.naming import naming_of
from bigbird_port.schema.reading.subtree import Subtree, Wanted, whole
from bigbird_port.schema.reading.training_state import ignored_reason, state_reason
from bigbird_port.training.found import find_training

KINDS = {
    "original": "TensorFlow checkpoint",
    "saved-model": "SavedModel, or a TensorFlow checkpoint saved by objects",
    "torch": "PyTorch weights",
    "flax": "Flax weights",
    "neutral": "neutral form",
}


@dataclass(frozen=True)
class Use:
    """What a name in a source means.

    what: "weight", "unused" (a weight of other heads), "alias" (it repeats a weight), "ignored", or "extra" (it means
    nothing here). name: canonical name, where it has one. detail: why, or of an alias the name whose values it repeats.
    """

    what: str
    name: str | None = None
    detail: str = ""


@dataclass(frozen=True)
class Tensor:
    """One tensor. statistics, sha256: None where its values were not read.

    flags: what is out of the ordinary. error: why its values cannot be read.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    use: Use
    statistics: Statistics | None = None
    sha256: str | None = None
    flags: tuple[str, ...] = ()
    error: str | None = None

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Inspection:
    """What a source holds. files: sizes in bytes. config, head: None where nothing tells them.

    notes: what was inferred, in sentences. problems: why the names or values do not fit the schema, in sentences.
    fills: what a conversion would put where weights lack, by canonical name. subtree: the part that holds the weights,
    "" for the whole. training: what it holds of an optimizer's state, in words; "" where there is none.
    """

    opened: Opened
    files: Mapping[Path, int]
    config: Configuration | None
    head: str | None
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    fills: Mapping[str, str]
    tensors: tuple[Tensor, ...]
    findings: tuple[Finding, ...]
    subtree: str = ""
    training: str = ""

    @property
    def parameters(self) -> int:
        """Number of values of all weights; what is ignored and what repeats another does not count."""
        return sum(tensor.count for tensor in self.tensors if tensor.use.what not in ("ignored", "alias"))

    @property
    def ignored(self) -> dict[str, int]:
        """How many names are ignored, by reason."""
        return dict(Counter(tensor.use.detail for tensor in self.tensors if tensor.use.what == "ignored"))

    @property
    def damaged(self) -> list[Tensor]:
        """Tensors whose values cannot be read."""
        return [tensor for tensor in self.tensors if tensor.error]


def inspect(
    path: Path,
    config_file: Path | None = None,
    num_attention_heads: int | None = None,
    head: str | None = None,
    subtree: str | None = None,
    ema: bool = False,
) -> Inspection:
    """Look into the source at ``path`` as far as it can be understood; reads all values but those of ignored names.

    Options are those of ``convert``. Raises ValueError where there is nothing that can be opened.
    """
    if config_file is not None:
        read_json_object(config_file)  # what was asked for by name and cannot be read is no mere problem
    opened, source, problems, wanted = open_store(path), None, [], Wanted(subtree, ema)
    try:
        source = open_source(path, config_file, num_attention_heads, head, wanted)
        opened, head = source.opened, head or source.head
        uses, fills = _uses_matched(source, head)
    except ValueError as error:
        problems.append(str(error))
        uses, fills = _uses_guessed(opened, _part(opened, wanted), head), {}
    tensors = _with_duplicates(_read(opened.store, uses))
    problems += _broken_aliases(tensors)
    contents = {
        tensor.use.name: tensor.statistics.content(tensor.sha256)
        for tensor in tensors
        if tensor.use.what == "weight" and tensor.use.name and tensor.statistics and tensor.sha256
    }
    training = _training(source, head, problems) if source and head and not problems else ""
    return Inspection(
        opened,
        {file: file.stat().st_size for file in opened.store.files},
        source.config if source else None,
        head,
        (*(source.notes if source else ()), *_passed_over(path, opened)),
        tuple(problems),
        fills,
        tuple(tensors),
        tuple(check_contents(dict(sorted(contents.items())))),
        source.subtree.label if source and source.subtree else "",
        training,
    )


def _training(source: Source, head: str, problems: list[str]) -> str:
    """The optimizer, how far it is, and how many slots of each kind there are; what is wrong goes to ``problems``."""
    try:
        found = find_training(source, source.match(head, source.config.for_head(head)))
    except ValueError as error:
        problems.append(str(error))
        return ""
    if found is None:
        return ""
    kinds = Counter(stored.slot.kind for stored in found.slots.values())
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    step = "an unknown step" if found.global_step is None else f"step {found.global_step}"
    return f"{found.rule.name} at {step}, {len(found.slots)} slots ({counts}), which convert --optimizer carries"


def _passed_over(path: Path, opened: Opened) -> list[str]:
    others = passed_over(path, opened.store.files)
    return [passed_over_note(opened.store.files, others)] if others else []


def _part(opened: Opened, wanted: Wanted) -> Subtree:
    """The part that holds the weights, or the whole where that is not clear."""
    shapes = {name: stored.shape for name, stored in opened.store.tensors.items()}
    try:
        return find_part(shapes, opened.style, wanted)
    except ValueError:
        return whole(default_family(), opened.style, shapes)


def _uses_matched(source: Source, head: str) -> tuple[dict[str, Use], dict[str, str]]:
    """What every name means for ``head``, and what it lacks; raises ValueError where a conversion would be refused."""
    match = source.match(head, source.config.for_head(head))
    uses = {name: Use("ignored", detail=fate.detail) for name, fate in match.fates.items() if fate.what == "ignored"}
    uses |= {name: Use("weight", canonical) for canonical, name in match.sources.items()}
    uses |= {name: Use("unused", canonical, match.fates[name].detail) for canonical, name in match.unused.items()}
    uses |= {name: Use("alias", match.fates[name].detail, original) for name, original in match.aliases.items()}
    return uses, match.fills


def _uses_guessed(opened: Opened, part: Subtree, head: str | None) -> dict[str, Use]:
    """What names mean, as far as each alone tells."""
    uses = {own: Use("ignored", detail=reason) for own, reason in part.outside.items()}
    reasons = {name: ignored_reason(part.family, name) for name in part.names}
    uses |= {part.names[name]: Use("ignored", detail=reason) for name, reason in reasons.items() if reason}
    names = [name for name, reason in reasons.items() if not reason]
    try:
        naming = naming_of(part.family, part.style, names, head)
    except ValueError as error:
        return uses | {part.names[name]: Use("extra", detail=str(error).partition(":")[0]) for name in names}
    shapes = part.inner({name: stored.shape for name, stored in opened.store.tensors.items()})
    meanings = {name: naming.meaning(name) for name in names}
    first = {meaning.name: part.names[name] for name, meaning in meanings.items() if meaning and not meaning.tied}
    for name, meaning in meanings.items():
        if meaning is None:
            state = state_reason(name, shapes, lambda other: meanings.get(other) is not None)
            use = Use("ignored", detail=state) if state else Use("extra", detail="no name of a weight")
        elif meaning.tied:
            use = Use("alias", meaning.name, first.get(meaning.name, ""))
        else:
            use = Use("weight", meaning.name)
        uses[part.names[name]] = use
    return uses


def _read(store: Store, uses: Mapping[str, Use]) -> list[Tensor]:
    """Every tensor, with the statistics of those that are not ignored."""
    names = [name for name, stored in store.tensors.items() if uses[name].what != "ignored" and stored.dtype]
    results = for_each(names, partial(_statistics, store))
    tensors = []
    for name, stored in store.tensors.items():
        tensor = Tensor(name, stored.dtype.name if stored.dtype else stored.type_name, stored.shape, uses[name])
        found = results.get(name)
        if isinstance(found, ValueError):
            tensor = replace(tensor, error=str(found))
        elif found:
            tensor = replace(tensor, statistics=found[0], sha256=found[1], flags=tuple(found[0].flags()))
        tensors.append(tensor)
    return tensors


def _statistics(store: Store, name: str) -> tuple[Statistics, str]:
    statistics, digest = Statistics(), hashlib.sha256()
    for piece in store.pieces(name):
        statistics.add(piece)
        digest.update(np.ascontiguousarray(piece).view(np.uint8).data)
    return statistics, digest.hexdigest()


def _with_duplicates(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The same with a flag on those whose bytes are another's; constants, of which many are alike, need none."""
    first: dict[tuple[str, str], str] = {}
    flagged = []
    for tensor in tensors:
        if tensor.sha256 and tensor.statistics and tensor.count > 1 and not tensor.statistics.is_constant:
            original = first.setdefault((tensor.sha256, tensor.dtype), tensor.name)
            if original != tensor.name and tensor.use.what != "alias":
                tensor = replace(tensor, flags=(*tensor.flags, f"duplicate of {original}"))
        flagged.append(tensor)
    return flagged


def _broken_aliases(tensors: Iterable[Tensor]) -> list[str]:
    """Names that should repeat the values of another and do not."""
    by_name = {tensor.name: tensor for tensor in tensors}
    pairs = [(tensor, by_name[tensor.use.detail]) for tensor in by_name.values() if tensor.use.what == "alias"
             and tensor.use.detail in by_name]  # fmt: skip
    return [
        f"{alias.name} should hold the values of {original.name}, but differs"
        for alias, original in pairs
        if alias.sha256 != original.sha256
    ]
