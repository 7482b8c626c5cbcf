"""Convert any source of weights into any targets in one pass, verified by reading back."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bigbird_port.conversion.manifest import MANIFEST, file_record, versions, write_manifest
from bigbird_port.conversion.source import Source, open_source
from bigbird_port.conversion.streaming import Weight, Written, stream
from bigbird_port.conversion.targets import ORBAX_FOLDER, Choices, Target, TargetName, left_out, plan_target
from bigbird_port.conversion.tokenizer import plan_tokenizer
from bigbird_port.conversion.values.canonical import pieces_as, reading_order
from bigbird_port.conversion.values.content import Finding, check_contents
from bigbird_port.families.bigbird.config import BigBirdConfig
from bigbird_port.families.bigbird.heads import HEADS
from bigbird_port.files.casting import float_type, is_float
from bigbird_port.files.digests import FileDigests, file_digest
from bigbird_port.files.output import whole_folder
from bigbird_port.files.reading import read_whole
from bigbird_port.files.replaceable import check_replaceable, check_sources_apart
from bigbird_port.formats.filling import flush_one, open_files, read_back
from bigbird_port.formats.open_store import open_store
from bigbird_port.formats.passed_over import passed_over, passed_over_note
from bigbird_port.formats.store import Store, read
from bigbird_port.formats.tensorflow.flags import flags_json
from bigbird_port.formats.tensorflow.locate import find_tokenizer, find_vocabulary, refuse_stand_in, vocabulary_note
from bigbird_port.schema.initialise import initial_value
from bigbird_port.schema.matching import Match
from bigbird_port.schema.naming import STYLES
from bigbird_port.schema.positions import POSITIONS, check_extension, extend_positions, how_extended
from bigbird_port.schema.subtree import Wanted
from bigbird_port.schema.table import Weight as Row
from bigbird_port.schema.table import dims, weights_of
from bigbird_port.schema.weights import digest

if TYPE_CHECKING:
    from bigbird_port.tokenizers.files import CarriedTokenizer

Progress = Callable[[str, int, int], None]
FLAGS_FILE = "bigbird.config"
_SPARE_BYTES = 16 << 20  # for configuration, tokenizer and manifest files, when the disk's free space is checked


@dataclass(frozen=True)
class Settings:
    """How to convert; every field is an option of the command.

    head: head to write; None takes what the source holds. seed: for head weights that it lacks. vocab: a
    SentencePiece file; None takes the one that the flags name or that lies beside the source, if any.
    max_position_embeddings: how many to make of the source's, positions: how (positions.METHODS). checksums:
    without them nothing is hashed or read back, and the output cannot be verified. subtree: which part of the source,
    where several could be meant. ema: take moving averages instead of the weights.
    """

    to: tuple[TargetName, ...] = ("torch", "flax")
    head: str | None = None
    config_file: Path | None = None
    num_attention_heads: int | None = None
    vocab: Path | None = None
    seed: int = 0
    dtype: str = "float32"
    choices: Choices = field(default_factory=Choices)
    allow_nonfinite: bool = False
    checksums: bool = True
    max_position_embeddings: int | None = None
    positions: str = "tile"
    subtree: str | None = None
    ema: bool = False


@dataclass(frozen=True)
class Plan:
    """What a conversion will do.

    vocabulary: a SentencePiece file. notes: what was inferred or chosen, in sentences. passed_over: weight files
    beside those that are read.
    """

    source: Source
    config: BigBirdConfig
    head: str
    match: Match
    targets: tuple[Target, ...]
    settings: Settings
    vocabulary: Path | None
    tokenizer: CarriedTokenizer | None
    notes: tuple[str, ...]
    passed_over: tuple[str, ...] = ()

    @property
    def extended(self) -> dict[str, str]:
        """What the manifest says of weights that are made longer than the source's."""
        present = self.source.config.max_position_embeddings
        if self.config.max_position_embeddings == present:
            return {}
        return {POSITIONS: how_extended(self.settings.positions, present)}

    @property
    def size(self) -> int:
        """Bytes of values to read."""
        shapes = (row.shape(self.config) for row in weights_of(self.config, self.head, "torch"))
        return sum(map(math.prod, shapes)) * float_type(self.settings.dtype).itemsize


@dataclass(frozen=True)
class Report:
    """What a conversion did. out: None where nothing was written."""

    plan: Plan
    out: Path | None
    written: Written
    findings: tuple[Finding, ...]
    values: dict[str, Any]


def convert(
    source: Path,
    out: Path,
    settings: Settings | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    digests: FileDigests | None = None,
) -> Report:
    """Convert ``source`` into ``out``/<target> for each target, and ``out``/manifest.json.

    progress: called with each weight's name, its bytes and those of all weights as it is done. digests: of the
    source's files, where hashing them has begun already.
    Raises ValueError, naming the thing and the next step, and then leaves no output.
    """
    check_replaceable(out, overwrite, source)
    plan = make_plan(source, settings or Settings())
    check_sources_apart(out, plan.source.opened.store.files)
    with (
        whole_folder(out, overwrite, source) as staged,
        digests or FileDigests() as digests,
        ThreadPoolExecutor(2) as disk,
    ):
        _check_room(plan, staged)
        if plan.settings.checksums:
            for path in plan.source.opened.store.files:
                digests.sha256(path)
        for target in plan.targets:
            (staged / target.name).mkdir()
        beside = [disk.submit(_write_beside, target, staged / target.name, plan) for target in plan.targets]
        written, findings = _pass(plan, staged, progress, digests.threads)
        for done in beside:
            done.result()
        flushing: list[Future[None]] = []
        files = {
            target.name: _finish(target, staged / target.name, plan, written, digests.threads, disk, flushing)
            for target in plan.targets
        }
        for flushed in flushing:
            flushed.result()  # the system tells an error of the disk once: not to whom flushes the same file later
        values = _manifest(plan, written, findings, _source_files(plan, digests), files)
        write_manifest(staged / MANIFEST, values)
    return Report(plan, out, written, findings, values)


def dry_run(source: Path, out: Path, settings: Settings | None = None, *, overwrite: bool = False) -> Report:
    """Read and check everything that ``convert`` would, write nothing; raises ValueError where it would fail."""
    check_replaceable(out, overwrite, source)
    plan = make_plan(source, settings or Settings())
    check_sources_apart(out, plan.source.opened.store.files)
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    _check_room(plan, parent)
    with FileDigests() as digests:
        written, findings = _pass(plan, None, None, digests.threads)
    return Report(plan, None, written, findings, {})


def make_plan(source: Path, settings: Settings | None = None) -> Plan:
    """Decide everything a conversion does, reading names and shapes only; raises ValueError as convert does."""
    settings = settings or Settings()
    wanted = Wanted(settings.subtree, settings.ema)
    opened = open_source(source, settings.config_file, settings.num_attention_heads, settings.head, wanted)
    config, notes = opened.config, list(opened.notes)
    others = passed_over(source, opened.opened.store.files)
    notes += [passed_over_note(opened.opened.store.files, others)] if others else []
    flags = opened.opened.config_file
    path = opened.opened.path
    vocabulary = settings.vocab or find_vocabulary(path / "any" if path.is_dir() else path, flags)
    if settings.vocab and settings.vocab.is_file():
        refuse_stand_in(settings.vocab, "a SentencePiece vocabulary")
    library = None if vocabulary else find_tokenizer(path)
    if settings.vocab or library:
        notes.append(f"vocabulary from {settings.vocab or library}")
    else:
        notes.append(vocabulary_note(vocabulary, flags))
    head = settings.head or opened.head
    if config != config.for_head(head):
        config = config.for_head(head)
        notes.append(f"{head}: is_decoder is set, and attention is full")
    match = opened.match(head, config)
    if settings.max_position_embeddings is not None:
        config = _extended(config, settings, notes)
    dtype = float_type(settings.dtype)
    for name in match.sources.values():
        stored = opened.opened.store.tensors[name]
        if not is_float(stored.dtype):
            found = stored.dtype or stored.type_name
            raise ValueError(f"{opened.opened.path}: {name} is {found}, expected floating-point numbers")
    targets = tuple(plan_target(name, config, head, dtype, settings.choices) for name in dict.fromkeys(settings.to))
    tokenizer, said = plan_tokenizer(vocabulary, library, path, settings, opened.config, config)
    notes += said
    if "tf" in settings.to:
        notes += flags_json(config)[1]
    return Plan(opened, config, head, match, targets, settings, vocabulary, tokenizer, tuple(notes), tuple(others))


def _extended(config: BigBirdConfig, settings: Settings, notes: list[str]) -> BigBirdConfig:
    """The configuration with more positions; raises ValueError where they cannot be made."""
    present, length = config.max_position_embeddings, settings.max_position_embeddings or 0
    try:
        check_extension(present, length, settings.positions)
    except ValueError as error:
        raise ValueError(f"--max-position-embeddings: {error}") from None
    if length > present:
        notes.append(f"{length} position embeddings from {present} ({settings.positions}): fine-tune before use")
    return config.replace(max_position_embeddings=length)


def _check_room(plan: Plan, folder: Path) -> None:
    needed, free = sum(target.size for target in plan.targets) + _SPARE_BYTES, shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f"{folder}: {needed} bytes are needed, {free} are free: free some space or choose another disk"
        )


def _pass(
    plan: Plan, staged: Path | None, progress: Progress | None, threads: Executor
) -> tuple[Written, tuple[Finding, ...]]:
    """Carry all weights through, and judge their contents."""
    written = stream(
        list(_weights(plan)),
        plan.targets,
        staged,
        float_type(plan.settings.dtype),
        dims(plan.config),
        (lambda name, size: progress(name, size, plan.size)) if progress else (lambda name, size: None),
        threads,
        plan.settings.checksums,
    )
    _check_aliases(plan)
    _check_nothing_lost(plan, written)
    findings = tuple(check_contents(written.contents))
    fatal = [finding.text for finding in findings if finding.fatal]
    if fatal and not plan.settings.allow_nonfinite:
        more = f" and {len(fatal) - 3} more" if len(fatal) > 3 else ""
        raise ValueError(
            f"{plan.source.opened.path}: {'; '.join(fatal[:3])}{more}. A model with NaN or Inf in its "
            "weights gives no useful results: use another checkpoint, or convert this one with --allow-nonfinite"
        )
    return written, findings


def _weights(plan: Plan) -> Iterator[Weight]:
    """The weights of the head, in the order in which the source is fastest to read, then those that it lacks."""
    rows = {row.name: row for row in weights_of(plan.config, plan.head, "torch")}
    store, style = plan.source.opened.store, STYLES[plan.source.opened.style]
    sizes = dims(plan.config)
    counts = {name: math.prod(row.shape(plan.config)) for name, row in rows.items()}
    for name, own in reading_order(store, plan.match.sources):
        axes = rows[name].axes
        pieces = partial(pieces_as, store, own, style.axes(rows[name]), axes, sizes)
        if name in plan.extended:
            pieces = partial(_more_positions, store, own, plan)
        yield Weight(name, axes, counts[name], pieces)
    for name, fill in plan.match.fills.items():
        row = replace(rows[name], init="zeros") if fill == "zeros" else rows[name]
        yield Weight(name, row.axes, counts[name], partial(_filled, row, plan))


def _more_positions(store: Store, name: str, plan: Plan) -> Iterator[np.ndarray]:
    yield extend_positions(read(store, name), plan.config.max_position_embeddings, plan.settings.positions).reshape(-1)


def _filled(row: Row, plan: Plan) -> Iterator[np.ndarray]:
    yield initial_value(row, plan.config, plan.settings.seed).reshape(-1)


def _check_aliases(plan: Plan) -> None:
    """Raise ValueError unless names that must repeat a weight's values do."""
    store = plan.source.opened.store
    for alias, original in plan.match.aliases.items():
        pairs = zip_longest(store.pieces(alias), store.pieces(original))
        if not all(a is not None and b is not None and np.array_equal(a, b, equal_nan=True) for a, b in pairs):
            raise ValueError(
                f"{plan.source.opened.path}: {alias} should hold the values of {original}, but differs: BigBird's "
                "decoder is tied to its embeddings, and a model in which it is not cannot be converted"
            )


def _check_nothing_lost(plan: Plan, written: Written) -> None:
    """Raise ValueError where a target has no place for values that matter: only the original lacks these biases."""
    if any(target.name == "tf" for target in plan.targets):
        for name in left_out("tf", plan.config, plan.head):
            if (written.contents[name].low, written.contents[name].high) != (0, 0):
                raise ValueError(
                    f"--to tf: without use_bias the original has no {name}, but here it is not zero, and the function "
                    "would change: leave out tf"
                )


def _finish(
    target: Target,
    folder: Path,
    plan: Plan,
    written: Written,
    threads: Executor,
    disk: Executor,
    flushing: list[Future[None]],
) -> list[Future[dict[str, Any]]]:
    """Write the files that need the checksums; read back all that are there, on ``threads``."""
    checksums = written.crc32c.get(target.name, {})
    late = target.format.finish(target.tensors, checksums) if target.format else []
    with open_files(late, folder):
        pass
    if target.format is None:
        _write_orbax(target, folder, written)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    flushing.extend(disk.submit(flush_one, path) for path in paths)  # the disk is slow: begin before reading back
    planned = {folder / file.name: file for file in (*target.files, *late)} if plan.settings.checksums else {}
    return [
        threads.submit(_verified_record, planned[path], path, checksums)
        if path in planned
        else threads.submit(_record, path, path.relative_to(folder).as_posix(), plan.settings.checksums)
        for path in paths
    ]


def _write_orbax(target: Target, folder: Path, written: Written) -> None:
    from bigbird_port.formats.flax.orbax_writer import write_orbax  # slow to import

    held = written.held[target.name]
    write_orbax(folder / ORBAX_FOLDER, held)
    store = open_store(folder / ORBAX_FOLDER).store
    for name, values in held.items():
        if name not in store.tensors or digest(read(store, name)) != digest(values):
            raise ValueError(f"{folder / ORBAX_FOLDER}: {name} read back differs from what was written")


def _write_beside(target: Target, folder: Path, plan: Plan) -> None:
    """Configuration, and tokenizer or vocabulary."""
    if target.name == "tf":
        flags = flags_json(plan.config)[0]
        if plan.vocabulary:
            (folder / plan.vocabulary.name).write_bytes(read_whole(plan.vocabulary))
            flags["vocab_model_file"] = plan.vocabulary.name
        _write_json(folder / FLAGS_FILE, flags)
        return
    _write_json(folder / "config.json", plan.config.to_json_values(HEADS[plan.head].class_name))
    if plan.tokenizer:
        plan.tokenizer.write(folder)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _record(path: Path, name: str, hashed: bool = True) -> dict[str, Any]:
    return file_record(name, path.stat().st_size, file_digest(path) if hashed else "")


def _source_files(plan: Plan, digests: FileDigests) -> list[dict[str, Any]]:
    checked = plan.settings.checksums
    return [
        file_record(path.name, path.stat().st_size, digests.sha256(path).result() if checked else "")
        for path in plan.source.opened.store.files
    ]


def _verified_record(file: Any, path: Path, checksums: dict[str, int]) -> dict[str, Any]:
    return file_record(file.name, file.size, read_back(file, path, checksums))


def _manifest(
    plan: Plan,
    written: Written,
    findings: Sequence[Finding],
    source_files: list[dict[str, Any]],
    files: Mapping[TargetName, list[Future[dict[str, Any]]]],
) -> dict[str, Any]:
    shapes = {row.name: row.shape(plan.config) for row in weights_of(plan.config, plan.head, "torch")}
    hows = dict.fromkeys(plan.match.sources, "converted") | plan.match.fills | plan.extended
    vocabulary = plan.vocabulary and _record(plan.vocabulary, plan.vocabulary.name)
    source = {"style": plan.source.opened.style, "name": plan.source.opened.path.name, "files": source_files}
    return {
        "versions": versions(),
        "source": source | ({"passed_over": list(plan.passed_over)} if plan.passed_over else {}) | plan.source.part,
        "head": plan.head,
        "config": plan.config.to_json_values(HEADS[plan.head].class_name),
        "dtype": plan.settings.dtype,
        "init_seed": plan.settings.seed,
        "vocabulary": vocabulary,
        "added_tokens": plan.tokenizer.records() if plan.tokenizer else [],
        "targets": {name: {"files": [record.result() for record in records]} for name, records in files.items()},
        "tensors": {
            name: {
                "source": plan.match.sources.get(name),
                "how": hows[name],
                "names": {target.name: target.places[name].name for target in plan.targets if name in target.places},
                "shape": list(shapes[name]),
                "dtype": plan.settings.dtype,
                "sha256": content.sha256,
                "largest_rounding": written.roundings[name].error,
            }
            for name, content in sorted(written.contents.items())
        },
        "source_names": {
            name: {"fate": fate.what, "detail": fate.detail} for name, fate in sorted(plan.match.fates.items())
        },
        "findings": [{"kind": finding.kind, "weight": finding.weight, "text": finding.text} for finding in findings],
    }
