"""Convert any source of weights into any targets in one pass, verified by reading back."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bigbird_port.conversion.exports import Exporter, write_record
from bigbird_port.conversion.manifest import MANIFEST, file_record, manifest_values, record_of, write_manifest
from bigbird_port.conversion.plan import Plan, Settings, make_plan
from bigbird_port.conversion.streaming import Weight, Written, stream
from bigbird_port.conversion.targets import ORBAX_FOLDER, Target, TargetName, left_out
from bigbird_port.conversion.training_places import state_tensors
from bigbird_port.conversion.values.canonical import pieces_as, reading_order
from bigbird_port.conversion.values.content import Finding, check_contents
from bigbird_port.families.configuration import described
from bigbird_port.files.casting import float_type
from bigbird_port.files.digests import FileDigests
from bigbird_port.files.outputs.output import whole_folder
from bigbird_port.files.outputs.replaceable import check_replaceable, check_sources_apart
from bigbird_port.files.reading import read_whole
from bigbird_port.formats.filling import flush_one, open_files, read_back
from bigbird_port.formats.flax.orbax_reader import open_orbax, orbax_items
from bigbird_port.formats.store import Store, read
from bigbird_port.schema.initialise import initial_value
from bigbird_port.schema.positions import extend_positions
from bigbird_port.schema.table import Weight as Row
from bigbird_port.schema.table import dims, weights_of
from bigbird_port.schema.weights import digest
from bigbird_port.training.state import SLOTS_FOLDER, STATE_FILE

if TYPE_CHECKING:
    pass

Progress = Callable[[str, int, int], None]
_SPARE_BYTES = 16 << 20  # for configuration, tokenizer and manifest files, when the disk's free space is checked


__all__ = ["Report", "Settings", "convert", "dry_run", "make_plan"]


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
    exporter: Exporter | None = None,
) -> Report:
    """Convert ``source`` into ``out``/<target> for each target, and ``out``/manifest.json.

    progress: called with each weight's name, its bytes and those of all weights as it is done. digests: of the
    source's files, where hashing them has begun already. exporter: makes programs for other runtimes, where the
    settings ask for some.
    Raises ValueError, naming the thing and the next step, and then leaves no output.
    """
    check_replaceable(out, overwrite, source)
    plan = _checked_plan(source, settings, exporter)
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
        beside = [disk.submit(_write_beside, target.name, staged / target.name, plan) for target in plan.targets]
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
        exports = _export(plan, staged, files, exporter, digests.threads)
        values = manifest_values(plan, written, findings, _source_files(plan, digests), files) | exports
        write_manifest(staged / MANIFEST, values)
    return Report(plan, out, written, findings, values)


def dry_run(
    source: Path,
    out: Path,
    settings: Settings | None = None,
    *,
    overwrite: bool = False,
    exporter: Exporter | None = None,
) -> Report:
    """Read and check everything that ``convert`` would, write nothing; raises ValueError where it would fail.

    Programs for other runtimes are planned, but neither made nor run.
    """
    check_replaceable(out, overwrite, source)
    plan = _checked_plan(source, settings, exporter)
    check_sources_apart(out, plan.source.opened.store.files)
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    _check_room(plan, parent)
    with FileDigests() as digests:
        written, findings = _pass(plan, None, None, digests.threads)
    return Report(plan, None, written, findings, {})


def _checked_plan(source: Path, settings: Settings | None, exporter: Exporter | None) -> Plan:
    """Plan a conversion; raises ValueError for programs that cannot be made, before anything is read."""
    plan = make_plan(source, settings or Settings())
    if not plan.exports:
        if plan.settings.length is not None:
            raise ValueError(
                "length is that of a program for other runtimes: ask for one, such as onnx, or leave it out"
            )
        return plan
    if exporter is None:
        raise ValueError(f"{', '.join(plan.exports)}: convert was given no exporter: pass parity.exports' Exporter()")
    return replace(plan, notes=(*plan.notes, *exporter.check(plan)))


def _export(
    plan: Plan,
    staged: Path,
    files: dict[TargetName, list[Future[dict[str, Any]]]],
    exporter: Exporter | None,
    threads: Executor,
) -> dict[str, Any]:
    """Make and verify programs, add their ``files``, drop what was written for them alone; what a manifest says."""
    records = {}
    for name in plan.exports:
        assert exporter is not None
        folder = staged / name
        folder.mkdir()
        export = exporter.write(name, staged, folder, plan)
        write_record(folder, export)
        _write_beside(name, folder, plan)
        records[name] = export.to_json()
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files[name] = [  # type: ignore[index]  # the manifest lists them as those of targets
            threads.submit(record_of, path, path.relative_to(folder).as_posix(), plan.settings.checksums)
            for path in paths
        ]
    for passing in plan.passing:
        shutil.rmtree(staged / passing)
        del files[passing]
    return {"exports": records} if records else {}


def _check_room(plan: Plan, folder: Path) -> None:
    needed = sum(target.size for target in plan.targets) + len(plan.exports) * plan.size + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f"{folder}: {needed} bytes are needed, {free} are free: free some space or choose another disk"
        )


def _pass(
    plan: Plan, staged: Path | None, progress: Progress | None, threads: Executor
) -> tuple[Written, tuple[Finding, ...]]:
    """Carry all weights through, and judge their contents."""
    written = stream(
        [*_weights(plan), *_state(plan)],
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
    _check_state(plan, written)
    findings = tuple(check_contents(written.contents | written.state))
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
    store = plan.source.opened.store
    sizes = dims(plan.config)
    counts = {name: math.prod(row.shape(plan.config)) for name, row in rows.items()}
    for name, own in reading_order(store, plan.match.sources):
        axes = rows[name].axes
        pieces = partial(pieces_as, store, own, plan.source.axes(rows[name]), axes, sizes)
        if name in plan.extended:
            pieces = partial(_more_positions, store, own, plan)
        yield Weight(name, axes, counts[name], pieces)
    for name, fill in plan.match.fills.items():
        row = replace(rows[name], init="zeros") if fill == "zeros" else rows[name]
        yield Weight(name, row.axes, counts[name], partial(_filled, row, plan))


def _state(plan: Plan) -> Iterator[Weight]:
    """The training state, if it is carried: as much of it as some target has a place for."""
    for tensor in state_tensors(plan.training) if plan.training else ():
        if any(tensor.name in target.places for target in plan.targets):
            yield Weight(tensor.name, tensor.axes, tensor.count, tensor.pieces, tensor.dtype)


def _check_state(plan: Plan, written: Written) -> None:
    """Raise ValueError for means of squares that are negative: no run leaves such behind."""
    for slot in plan.training.slots if plan.training else ():
        if slot.slot.kind != "m" and slot.slot.name in written.state and written.state[slot.slot.name].low < 0:
            raise ValueError(
                f"{plan.source.opened.path}: {slot.source} holds {written.state[slot.slot.name].low:g}, but a mean of "
                "squares is never negative: the state is damaged: begin anew by --fresh-optimizer"
            )


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
                f"{plan.source.opened.path}: {alias} should hold the values of {original}, but differs: the "
                "model has one table for both, and one in which they differ cannot be converted"
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
        else threads.submit(record_of, path, path.relative_to(folder).as_posix(), plan.settings.checksums)
        for path in paths
    ]


def _write_orbax(target: Target, folder: Path, written: Written) -> None:
    from bigbird_port.formats.flax.orbax_writer import write_orbax  # slow to import

    held = written.held[target.name]
    for inner, slots in ((ORBAX_FOLDER, False), (SLOTS_FOLDER, True)):
        arrays = {name: values for name, values in held.items() if (name in target.slots) == slots}
        if not arrays:
            continue
        write_orbax(folder / inner, arrays)
        store = open_orbax(orbax_items(folder / inner))
        for name, values in arrays.items():
            if name not in store.tensors or digest(read(store, name)) != digest(values):
                raise ValueError(f"{folder / inner}: {name} read back differs from what was written")


def _write_beside(target: str, folder: Path, plan: Plan) -> None:
    """Configuration, and tokenizer or vocabulary."""
    if target == "tf":
        flags = plan.config.family.flags(plan.config, None)[0]
        if plan.vocabulary:
            (folder / plan.vocabulary.name).write_bytes(read_whole(plan.vocabulary))
            flags["vocab_model_file"] = plan.vocabulary.name
        if plan.tokenizer:
            flags |= plan.tokenizer.flags(flags)
        if plan.training:
            flags = dict(sorted((flags | plan.training.state.training.flags).items()))
        _write_json(folder / plan.config.family.flags_file, flags)
        return
    _write_json(folder / "config.json", described(plan.config, plan.head))
    if plan.training and target not in plan.exports:
        (folder / STATE_FILE).write_text(plan.training.state.text(), encoding="utf-8")
    if plan.tokenizer:
        plan.tokenizer.write(folder)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _source_files(plan: Plan, digests: FileDigests) -> list[dict[str, Any]]:
    checked = plan.settings.checksums
    return [
        file_record(path.name, path.stat().st_size, digests.sha256(path).result() if checked else "")
        for path in plan.source.opened.store.files
    ]


def _verified_record(file: Any, path: Path, checksums: dict[str, int]) -> dict[str, Any]:
    return file_record(file.name, file.size, read_back(file, path, checksums))
