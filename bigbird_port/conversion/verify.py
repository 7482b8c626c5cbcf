"""Verify what convert wrote against its manifest, and against the source: files, weights, configurations, fills."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_port.conversion.exports import EXPORTS, RECORD
from bigbird_port.conversion.manifest import MANIFEST, MANIFEST_VERSION, Manifest, manifest_text, read_manifest
from bigbird_port.conversion.source import Source, open_part, open_source
from bigbird_port.conversion.targets import ORBAX_FOLDER, TARGETS, carried_by
from bigbird_port.conversion.tokenizer import added_token_problems
from bigbird_port.conversion.values.canonical import for_each, hash_pieces, pieces_as, reading_order
from bigbird_port.families.configuration import described
from bigbird_port.files.casting import DTYPES, float_type
from bigbird_port.files.digests import file_digest
from bigbird_port.files.json_object import MAX_JSON_BYTES, as_json_object, read_json_object
from bigbird_port.files.outputs.listed_files import compare_files
from bigbird_port.files.outputs.out_folder import check_left_over, strangers
from bigbird_port.files.reading import read_whole
from bigbird_port.formats.open_store import open_weights
from bigbird_port.formats.safetensors.neutral import NeutralFormat
from bigbird_port.schema.initialise import initial_value
from bigbird_port.schema.positions import extend_positions, how_extended, read_how
from bigbird_port.schema.reading.matching import Match
from bigbird_port.schema.reading.subtree import Wanted
from bigbird_port.schema.table import dims, weights_of
from bigbird_port.training.state import state_from
from bigbird_port.training.verified import hash_problems, source_problems, training_problems

_STYLES_OF = {"torch": "torch", "flax": "flax", "tf": "original", "neutral": "neutral"}
_EXPECTED = ("converted", "alias")  # what becomes of names in a target
_SHOWN = 3  # differences that a line names


@dataclass(frozen=True)
class Check:
    """One check: what was checked, whether it held, what was found, and how much of OUT it compared."""

    name: str
    passed: bool
    detail: str
    files: int = 0
    bytes: int = 0
    tensors: int = 0


@dataclass(frozen=True)
class Verification:
    """All checks of one folder. targets: those that the manifest lists."""

    out: Path
    checks: tuple[Check, ...]
    targets: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Files, their bytes, weights (each target's counted) and targets that were compared."""
        sums = {what: sum(getattr(check, what) for check in self.checks) for what in ("files", "bytes", "tensors")}
        return sums | {"targets": len(self.targets)}

    @property
    def passed(self) -> bool:
        """Whether every check held, and there was something to compare."""
        counts = self.counts
        if set(self.targets) <= set(EXPORTS):  # whose weights cannot be read again one by one
            del counts["tensors"]
        return all(check.passed for check in self.checks) and min(counts.values()) > 0


def verify(
    out: Path,
    source: Path | None = None,
    on: Callable[[Check], None] = lambda check: None,
    subtree: str | None = None,
) -> Verification:
    """Verify ``out``, which convert wrote; with ``source`` also that its weights are those of that source.

    on: called with each check as it is done. subtree: which part of the source; None takes the one that the manifest
    names, where the source has it. Raises ValueError where nothing can be checked: there is no manifest or
    one of another version, it was written without checksums, or the source cannot be opened.
    """
    manifest, first = _check_manifest(out)
    opened = _open_as(source, manifest, subtree) if source is not None and manifest else None
    checks = []
    for check in chain([first], _checks(out, manifest, opened) if manifest else ()):
        checks.append(check)
        on(check)
    return Verification(out, tuple(checks), tuple(manifest.targets) if manifest else ())


def _check_manifest(out: Path) -> tuple[Manifest | None, Check]:
    """Read the manifest; None where it was changed."""
    check_left_over(out)
    path = out / MANIFEST
    if not path.is_file():
        raise ValueError(f"{path}: there is no manifest: give the folder that convert wrote")
    version = None
    with suppress(ValueError):  # a damaged one is told below
        version = read_json_object(path).get("manifest_version")
    if type(version) is int and version != MANIFEST_VERSION:
        raise ValueError(f"{path}: manifest_version is {version}, expected {MANIFEST_VERSION}: convert it again")
    try:
        manifest = read_manifest(out)
    except ValueError as error:
        return None, Check("manifest", False, str(error))
    if not any(record["sha256"] for target in manifest.targets for record in manifest.files(target)):
        raise ValueError(f"{out}: it was converted with --no-checksums: there is nothing to compare it with")
    problems = list(_inconsistencies(manifest))
    if read_whole(path, MAX_JSON_BYTES) != manifest_text(manifest.values).encode():
        problems.append("its text was changed after it was written")
    return manifest, _check("manifest", problems, "as it was written")


def _inconsistencies(manifest: Manifest) -> Iterator[str]:
    """What in a manifest contradicts its own configuration, head and dtype."""
    values, config = manifest.values, manifest.config
    if values["config"] != described(config, manifest.head):
        yield f"its configuration is not that of a {manifest.head} model"
    shapes = {row.name: list(row.shape(config)) for row in weights_of(config, manifest.head, "torch")}
    tensors = values["tensors"]
    yield from (f"{name} is not listed" for name in shapes if name not in tensors)
    yield from (f"{name} is no weight of this model" for name in tensors if name not in shapes)
    for name, entry in tensors.items():
        if name in shapes and (entry["shape"], entry["dtype"]) != (shapes[name], values["dtype"]):
            yield f"{name} is listed as {entry['dtype']} {entry['shape']}, expected {values['dtype']} {shapes[name]}"


def _checks(out: Path, manifest: Manifest, source: Source | None) -> Iterator[Check]:
    """The checks behind that of the manifest itself."""
    others = strangers(out, [MANIFEST, *(f"{target}/any" for target in manifest.targets)])
    strays = [why for name, why in others.items() if name.partition("/")[0] not in manifest.targets]
    strays += [] if manifest.targets else ["the manifest lists none"]
    strays += [f"{name!r} is no target: refused" for name in manifest.targets if name not in (*TARGETS, *EXPORTS)]
    yield _check("targets", strays, f"{', '.join(manifest.targets)} and no other")
    for target in manifest.targets:
        if target not in (*TARGETS, *EXPORTS):
            continue
        found = compare_files(out / target, manifest.files(target))
        detail = f"{found.count} files, {found.bytes} bytes, sha256 as listed"
        yield _check(f"{target} files", found.problems, detail, files=found.count, bytes=found.bytes)
        if target in EXPORTS:
            if found.safe:
                yield _guarded(f"{target} record", partial(_check_export, out / target, target, manifest))
        elif found.safe and found.problems and (out / target / ORBAX_FOLDER).exists():
            detail = "not read, because its files differ: the library of Orbax is not made for damaged ones"
            yield Check(f"{target} weights", False, detail)
        elif found.safe:
            yield _guarded(f"{target} weights", partial(_check_weights, out / target, target, manifest))
            if "training" in manifest.values:
                yield _guarded(f"{target} training", partial(_check_training, out / target, target, manifest))
        if found.safe:
            yield _guarded(f"{target} configuration", partial(_check_config, out / target, target, manifest))
    if source:
        yield _check_source_files(source, manifest)
        yield _guarded("source weights", partial(_check_source_weights, source, manifest))
        if "training" in manifest.values:
            yield _guarded("source training", partial(_check_source_training, source, manifest))
        yield _guarded("fills", partial(_check_fills, source, manifest))


def _check(name: str, problems: Sequence[str], detail: str, **counts: int) -> Check:
    """A check that held if there are no problems; its line names the first of them."""
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return Check(name, not problems, "; ".join(problems[:_SHOWN]) + more if problems else detail, **counts)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except ValueError as error:
        return Check(name, False, str(error))


def _check_weights(folder: Path, target: str, manifest: Manifest) -> Check:
    """Every weight of one target, read again in canonical form, against the manifest's hashes of weights."""
    opened = open_weights(folder)
    if opened.style != _STYLES_OF[target]:
        raise ValueError(f"{folder}: it holds a {opened.style} model, expected {_STYLES_OF[target]}")
    source = Source(opened, manifest.config, manifest.head, ())
    match = source.match(manifest.head)
    held = match.sources | match.unused
    names = {name: entry["names"].get(target) for name, entry in manifest.values["tensors"].items()}
    problems = [
        f"{name} is not in it" for name in carried_by(target, manifest.config, manifest.head) if name not in held
    ]
    state = _state_names(manifest, target)
    problems += [
        f"{name} is not in the manifest"
        for name, fate in match.fates.items()
        if fate.what not in _EXPECTED and name not in state
    ]
    for alias, name in _copies(match, manifest, target).items():
        if name is None:
            problems.append(f"{alias} is not in the manifest")
        else:
            problems += _differing(_hashes(source, {name: alias}), {name: manifest.digests(target)[name]})
    for name, stored_name in held.items():
        if stored_name != names.get(name):
            problems.append(f"{name} is called {stored_name}, in the manifest {names.get(name)}")
        if (dtype := opened.store.tensors[stored_name].dtype) != _dtype(manifest):
            problems.append(f"{stored_name} is {dtype}, expected {manifest.values['dtype']}")
    problems += _differing(_hashes(source, held), manifest.digests(target))
    detail = f"{len(held)} read again, sha256 of each as listed"
    return _check(f"{target} weights", problems, detail, tensors=len(held))


def _state_names(manifest: Manifest, target: str) -> set[str]:
    """Names in a target that are of a training state; the original keeps it beside its weights."""
    training = manifest.values.get("training")
    if training is None or target != "tf":
        return set()
    return {entry["names"].get(target, "") for entry in training["slots"].values()} | {
        "global_step",
        *training["state"]["powers"],
    }


def _check_training(folder: Path, target: str, manifest: Manifest) -> Check:
    """The training state beside one target's weights, every slot read again in canonical form."""
    source = Source(open_weights(folder), manifest.config, manifest.head, ())
    problems, count = training_problems(source, source.match(manifest.head), manifest, target)
    return _check(f"{target} training", problems, f"{count} slots read again, sha256 of each as listed", tensors=count)


def _check_source_training(source: Source, manifest: Manifest) -> Check:
    """Every slot read again from the source, against the manifest."""
    problems, count = source_problems(source, source.match(manifest.head), manifest)
    return _check("source training", problems, f"{count} slots read again from the source, sha256 of each as listed")


def _copies(match: Match, manifest: Manifest, target: str) -> dict[str, str | None]:
    """Names that hold a weight's values once more, as the target writes them -> that weight; None for any other."""
    rows = weights_of(manifest.config, manifest.head, "torch") if target == "torch" else ()
    known = {copy: row.name for row in rows for copy in row.copies}
    return {name: known.get(name) for name, fate in match.fates.items() if fate.what == "alias"}


def _dtype(manifest: Manifest) -> np.dtype:
    if manifest.values["dtype"] not in DTYPES:
        raise ValueError(f"{manifest.path}: dtype is {manifest.values['dtype']!r}, expected one of {', '.join(DTYPES)}")
    return float_type(manifest.values["dtype"])


def _hashes(source: Source, sources: Mapping[str, str], dtype: np.dtype | None = None) -> dict[str, str | ValueError]:
    """sha256 of weights in canonical form by canonical name, cast to ``dtype`` if given; an error where one fails."""
    store, sizes = source.opened.store, dims(source.config)
    rows = {row.name: row for row in weights_of(source.config)}

    def of(name: str) -> str:
        row = rows[name]
        return hash_pieces(pieces_as(store, sources[name], source.axes(row), row.axes, sizes), dtype, name)

    return for_each((name for name, _ in reading_order(store, sources)), of)


def _differing(found: Mapping[str, str | ValueError], expected: Mapping[str, str]) -> list[str]:
    """What keeps two sets of hashes from being one and the same."""
    problems = hash_problems(found, expected)
    return problems if found or problems else ["there is nothing to compare"]


def _check_config(folder: Path, target: str, manifest: Manifest) -> Check:
    """The configuration beside a target's weights (of the neutral form: also the one in its file)."""
    name, expected = "config.json", manifest.values["config"]
    if target == "tf":
        family, vocabulary = manifest.config.family, manifest.values["vocabulary"] or {}
        name, expected = family.flags_file, family.flags(manifest.config, vocabulary.get("name"))[0]
        if "training" in manifest.values:
            expected |= state_from(manifest.values["training"]["state"], str(manifest.path)).training.flags
    problems = _unequal(name, read_json_object(folder / name), expected)
    if target != "tf":
        records = manifest.values.get("added_tokens", [])
        problems += added_token_problems(folder, records, manifest.config.vocab_size)
    if target == "neutral":
        metadata = getattr(open_weights(folder).store, "metadata", {})
        wanted = NeutralFormat(manifest.config, manifest.head).metadata
        problems += _unequal("its metadata", {**metadata, "config": None}, {**wanted, "config": None})
        inner = as_json_object(metadata.get("config", "").encode(), "the configuration in its metadata")
        problems += _unequal("its metadata's config", inner, expected)
    return _check(f"{target} configuration", problems, f"{name} equals the manifest's")


def _check_export(folder: Path, target: str, manifest: Manifest) -> Check:
    """The record beside a program against the manifest; that the program computes what it should is parity's to say."""
    problems = _unequal(RECORD, read_json_object(folder / RECORD), manifest.values.get("exports", {}).get(target, {}))
    return _check(f"{target} record", problems, f"{RECORD} equals the manifest's; 'parity --against' runs the program")


def _unequal(name: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Fields in which two JSON objects differ; 1, 1.0 and true do."""
    differing = [
        field
        for field in sorted(found.keys() | expected.keys())
        if field not in found or field not in expected or repr(found[field]) != repr(expected[field])
    ]
    return [f"{name} differs from the manifest in {', '.join(differing)}"] if differing else []


def _open_as(path: Path, manifest: Manifest, subtree: str | None) -> Source:
    """Open a source under the manifest's configuration, the same part of it that was converted."""
    recorded, head = manifest.values["source"], manifest.head
    wanted = Wanted(subtree or recorded.get("subtree") or None, recorded.get("ema", False))
    try:
        opened, part = open_part(path, wanted=wanted)
    except ValueError:
        if subtree is not None:
            raise
        wanted = Wanted()  # the same weights in another container, which has no such part
        opened, part = open_part(path)
    if part.family.styles[opened.style].per_head:  # names depend on whose model it is, as its own configuration says
        with suppress(ValueError):
            head = open_source(path, head=head, wanted=wanted).head
    config = manifest.config
    if found := _extension(manifest):  # the source's own number of positions
        config = config.replace(max_position_embeddings=found[1], max_encoder_length=None)
    return Source(opened, config, head, (), part, wanted)


def _extension(manifest: Manifest) -> tuple[str, int] | None:
    """How the position embeddings were made longer, and from how many; None where they were not."""
    return read_how(manifest.values["tensors"].get(manifest.config.family.positions, {"how": ""})["how"])


def _check_source_files(source: Source, manifest: Manifest) -> Check:
    """The source's files, if they are called what they were called."""
    listed = sorted((record["name"], record["sha256"]) for record in manifest.values["source"]["files"])
    files = sorted((path.name, path) for path in source.opened.store.files)
    if [name for name, _ in files] != [name for name, _ in listed]:
        return Check("source files", True, "not compared, because their names are others; the weights count")
    found = sorted((name, file_digest(path)) for name, path in files)
    changed = [f"{name} differs from its sha256" for name, _ in sorted(set(found) - set(listed))]
    return _check("source files", changed, f"{len(found)} files, sha256 as listed")


def _check_source_weights(source: Source, manifest: Manifest) -> Check:
    """Every weight read again from the source and cast, against the manifest."""
    tensors = manifest.values["tensors"]
    match = source.match(manifest.head)
    problems = []
    if source.opened.style == manifest.values["source"]["style"]:
        problems = [
            f"{name} is {stored_name} in the source, in the manifest {tensors[name]['source']}"
            for name, stored_name in match.sources.items()
            if name in tensors and stored_name != tensors[name]["source"]
        ]
    expected = {name: entry["sha256"] for name, entry in tensors.items() if entry["source"] is not None}
    found = _hashes(source, match.sources, _dtype(manifest))
    if extension := _extension(manifest):
        name = manifest.config.family.positions
        table = source.weight(name, match.sources[name])
        longer = extend_positions(table, manifest.config.max_position_embeddings, extension[0])
        found[name] = hash_pieces([longer.reshape(-1)], _dtype(manifest), name)
    problems += _differing(found, expected)
    detail = f"{len(match.sources)} read again from the source, sha256 of each as listed"
    return _check("source weights", problems, detail)


def _check_fills(source: Source, manifest: Manifest) -> Check:
    """Weights that the source lacks, made again."""
    tensors, config = manifest.values["tensors"], manifest.config
    rows = {row.name: row for row in weights_of(config, manifest.head, "torch")}
    fills = source.match(manifest.head).fills
    made = dict(fills)
    if extension := _extension(manifest):
        made[config.family.positions] = how_extended(*extension)
    problems = [
        f"{name} is listed as {tensors[name]['how']}, expected {made.get(name, 'converted')}"
        for name in tensors
        if tensors[name]["how"] != made.get(name, "converted")
    ]
    for name, how in fills.items():
        zeros = how == "zeros"
        values = (
            np.zeros(rows[name].shape(config), np.float32)
            if zeros
            else initial_value(rows[name], config, manifest.values["init_seed"])
        )
        if name in tensors and hash_pieces([values], _dtype(manifest), name) != tensors[name]["sha256"]:
            problems.append(f"{name} differs from what {'zeros' if zeros else 'the seed'} would give")
    return _check("fills", problems, f"{len(fills)} made again, sha256 of each as listed")
