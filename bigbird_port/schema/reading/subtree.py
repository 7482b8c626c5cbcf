"""Find the one part of a checkpoint under which the family's names fit, whatever it is wrapped in.

A training state, a Lightning checkpoint, a model inside DataParallel or under a scope of TensorFlow all hold the
weights under one prefix. The word embeddings show where: each place that holds them is a candidate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from bigbird_port.families.family import Family
from bigbird_port.schema.reading.matching import Fate, Match
from bigbird_port.schema.reading.respelling import is_old, respelled, wrappers_in
from bigbird_port.schema.reading.style import StyleName
from bigbird_port.schema.reading.training_state import MOVING_AVERAGE, state_of_part

Shapes = Mapping[str, tuple[int, ...]]
WHOLE = "."  # how --subtree names the top level

# Styles that a file of one kind may turn out to have.
_STYLES: Mapping[StyleName, tuple[StyleName, ...]] = {
    "saved-model": ("saved-model", "original"),
    "torch": ("torch", "flax"),
}
_EMA = re.compile(r"(.*_)?(ema|swa)(_.*)?|averaged?(_.*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Wanted:
    """What of a source is asked for. subtree: the name of one part. ema: moving averages instead of the weights."""

    subtree: str | None = None
    ema: bool = False


@dataclass(frozen=True)
class Subtree:
    """One part of a source. label: what it is called; "" for the whole.

    family: whose weights they are. style: which of its styles their names have.
    names: the style's names -> the source's own. outside: own name -> why it is ignored. strays: those of outside that
    nothing explains but that they lie elsewhere. notes: what was decided, in sentences. anchored: whether it holds
    word embeddings.
    """

    family: Family
    style: StyleName
    names: Mapping[str, str]
    label: str = ""
    outside: Mapping[str, str] = field(default_factory=dict)
    strays: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    anchored: bool = False

    def inner(self, shapes: Shapes) -> dict[str, tuple[int, ...]]:
        """The shapes of what is in it, by the style's names."""
        return {name: shapes[own] for name, own in self.names.items()}

    def owned(self, match: Match) -> Match:
        """A match of the style's names, told in the source's own, with the fates of all that lies outside."""
        own = self.names
        fates = {own[name]: fate for name, fate in match.fates.items()}
        return Match(
            {weight: own[name] for weight, name in match.sources.items()},
            match.fills,
            fates | {name: Fate("ignored", reason) for name, reason in self.outside.items()},
            {own[alias]: own[name] for alias, name in match.aliases.items()},
            {weight: own[name] for weight, name in match.unused.items()},
            tuple(own[name] for name in match.zeros),
        )


@dataclass(frozen=True)
class _Candidate:
    """A place that holds the family's anchor: ``anchor``, as spelled today.

    prefix: of all its names; core: of those of its base model at least.
    """

    family: Family
    style: StyleName
    anchor: str
    prefix: str
    core: str

    @property
    def label(self) -> str:
        return (self.prefix or self.core).rstrip("./") or WHOLE

    @property
    def is_state(self) -> bool:
        return state_of_part(self.core) is not None

    @property
    def is_average(self) -> bool:
        return any(_EMA.fullmatch(part) for part in _parts(self.core))


def whole(family: Family, style: StyleName, names: Iterable[str]) -> Subtree:
    """The whole of a source, every name as it is."""
    return Subtree(family, style, {name: name for name in names})


def find_subtree(family: Family, shapes: Shapes, style: StyleName, wanted: Wanted | None = None) -> Subtree:
    """Return the part of a source that holds the family's weights; where there is none, the whole.

    Raises ValueError where several parts may be meant, or none is what ``wanted`` asks for.
    """
    wanted = wanted or Wanted()
    for each in _STYLES.get(style, (style,)):
        spelled = respelled(shapes, each)
        if candidates := _candidates(family, spelled, each):
            break
    else:
        if wanted.subtree not in (None, WHOLE):
            raise ValueError(f"--subtree {wanted.subtree}: no part of it holds {family.title}'s word embeddings")
        return whole(family, style, shapes)
    chosen = _choose(candidates, wanted, spelled)
    return _cut(chosen, candidates, spelled, shapes, wanted)


def _candidates(family: Family, spelled: Mapping[str, str], style: StyleName) -> list[_Candidate]:
    """The places that hold word embeddings, each once."""
    found: dict[str, _Candidate] = {}
    for name in spelled:
        for anchor in dict.fromkeys(each for row in family.anchor_rows for each in family.styles[style].names(row)):
            if candidate := _candidate(family, name, anchor, spelled, style):
                found.setdefault(candidate.core, candidate)
    return sorted(found.values(), key=lambda each: each.label)


def _candidate(
    family: Family, name: str, anchor: str, spelled: Mapping[str, str], style: StyleName
) -> _Candidate | None:
    scoped = anchor.startswith("{scope}")
    anchor = anchor.removeprefix("{scope}/")
    prefix = name.removesuffix(anchor)
    if prefix == name or (prefix and prefix[-1] not in "./") or (scoped and not prefix):
        return None
    if style == "saved-model":  # its names are known by their ends, whatever stands before each
        return _Candidate(family, style, name, "", "")
    if scoped:
        return _Candidate(family, style, name, _outer(family, prefix, spelled), prefix)
    base = family.styles[style].prefix
    if base and prefix.endswith(base) and prefix[: -len(base)][-1:] in ("", ".", "/"):
        prefix = prefix.removesuffix(base)
    return _Candidate(family, style, name, prefix, prefix)


def _outer(family: Family, core: str, spelled: Mapping[str, str]) -> str:
    """What of a scope also stands before the variables that have no scope of their own, such as cls/."""
    parts = core.rstrip("/").split("/")
    outers = ["".join(f"{part}/" for part in parts[:count]) for count in range(len(parts))]
    free = [name for row in family.schema for name in row.original if not name.startswith("{")]
    return max(outers, key=lambda outer: sum(outer + name in spelled for name in free))


def _choose(candidates: list[_Candidate], wanted: Wanted, spelled: Mapping[str, str]) -> _Candidate:
    """The one that is meant."""
    models = [each for each in candidates if not each.is_state]
    if wanted.subtree is not None:
        found = _named(candidates, wanted.subtree)
        if len(found) != 1:
            raise ValueError(
                f"--subtree {wanted.subtree}: {'several parts' if found else 'no part'} of that name holds "
                f"{candidates[0].family.title} weights; give one of {_listed(found or candidates, spelled)}"
            )
        return found[0]
    if wanted.ema and any(each.is_average for each in models):
        models = [each for each in models if each.is_average]
    if len(models) > 1:
        raise ValueError(
            f"it holds {len(models)} models: {_listed(models, spelled)}: choose one by --subtree NAME"
            + ("" if wanted.ema or not any(each.is_average for each in models) else " (averages also by --ema)")
        )
    if not models:
        raise ValueError(
            f"it holds an optimizer's state alone ({_listed(candidates, spelled)}): give the checkpoint of the weights"
        )
    return models[0]


def _named(candidates: list[_Candidate], name: str) -> list[_Candidate]:
    """Those that ``name`` means: by the whole label, or else by its beginning or end."""
    wanted = _parts(name)
    exact = [each for each in candidates if each.label == name or (wanted and _parts(each.label) == wanted)]
    if exact or not wanted:
        return exact
    count = len(wanted)
    ends = [each for each in candidates if wanted in (_parts(each.label)[:count], _parts(each.label)[-count:])]
    return [each for each in ends if not each.is_state] or ends


def _listed(candidates: Iterable[_Candidate], spelled: Mapping[str, str]) -> str:
    return ", ".join(
        f"{each.label} ({sum(name.startswith(each.core) for name in spelled)} names)" for each in candidates
    )


def _cut(
    chosen: _Candidate,
    candidates: list[_Candidate],
    spelled: Mapping[str, str],
    shapes: Shapes,
    wanted: Wanted,
) -> Subtree:
    """The chosen part: what is in it, and why the rest is ignored."""
    others = [each for each in candidates if not chosen.core.startswith(each.core)]
    names: dict[str, str] = {}
    outside: dict[str, str] = {}
    strays = []
    for name, own in spelled.items():
        other = next((each for each in others if name.startswith(each.core)), None)
        if name.startswith(chosen.prefix) and len(name) > len(chosen.prefix) and other is None:
            names[name[len(chosen.prefix) :]] = own
            continue
        reason = _why_outside(name, chosen, other, shapes[own])
        outside[own] = reason or f"outside {chosen.label} ({_branch(name, chosen.prefix)})"
        if reason is None:
            strays.append(own)
    notes = list(_notes(chosen, candidates, spelled))
    if wanted.ema and not chosen.is_average:
        averaged = _take_averages(names)
        outside |= dict.fromkeys(averaged, "replaced by its moving average (--ema)")
        notes.append(f"{len(averaged)} weights taken from their moving averages (--ema)")
    label = "" if chosen.label == WHOLE or (len(candidates) == 1 and not chosen.prefix) else chosen.label
    return Subtree(chosen.family, chosen.style, names, label, outside, tuple(strays), tuple(notes), anchored=True)


def _why_outside(name: str, chosen: _Candidate, other: _Candidate | None, shape: tuple[int, ...]) -> str | None:
    branch = _branch(name, chosen.prefix)
    if state := state_of_part(name):
        return f"optimizer state ({branch if state in _parts(branch) else state})"
    if other is not None:
        return f"moving averages ({other.label})" if other.is_average else f"another model ({other.label})"
    return f"training state ({branch})" if shape == () else None


def _take_averages(names: dict[str, str]) -> list[str]:
    """Put moving averages in the place of their variables; returns the own names of the latter."""
    averages = [name for name in names if name.endswith(MOVING_AVERAGE) and name.removesuffix(MOVING_AVERAGE) in names]
    if not averages:
        raise ValueError("--ema: it holds no moving averages: leave --ema out")
    replaced = []
    for average in averages:
        name = average.removesuffix(MOVING_AVERAGE)
        replaced.append(names[name])
        names[name] = names.pop(average)
    return replaced


def _notes(chosen: _Candidate, candidates: list[_Candidate], spelled: Mapping[str, str]) -> Iterator[str]:
    own, inner = spelled[chosen.anchor], chosen.anchor[len(chosen.prefix) :]
    prefix = own.removesuffix(inner) if own.endswith(inner) else chosen.prefix
    if prefix:
        yield f"weights found under {prefix!r}: that prefix is taken off their names"
    elif chosen.style == "original" and "/" in chosen.core.rstrip("/"):
        yield f"weights found in the scope {chosen.core.rstrip('/')!r}"
    elif sum(not each.is_state for each in candidates) > 1:
        yield f"weights found under {chosen.label!r}"
    inside = [found for own in spelled.values() if (found := wrappers_in(own.removeprefix(prefix)))]
    if chosen.style == "torch" and inside:
        yield f"{len(inside)} names read without {', '.join(sorted({part for found in inside for part in found}))}"
    if renamed := [own for name, own in spelled.items() if chosen.style == "torch" and is_old(own)]:
        yield f"{len(renamed)} names LayerNorm.gamma and LayerNorm.beta read as LayerNorm.weight and LayerNorm.bias"


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[./]", name) if part]


def _branch(name: str, prefix: str) -> str:
    """The beginning of a name as far as the first part in which it leaves the prefix."""
    at = 0
    for found in re.finditer(r"[^./]+", name):
        at = found.end()
        if not prefix.startswith(name[: at + 1]):
            break
    return name[:at]
