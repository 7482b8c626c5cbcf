"""What runs in a process of its own: the gate on the code as it is, or on a mutant of it.

The process is forked from one that has imported what others have written and nothing of the project. So a mutant is
imported as everybody imports it, and what it leaves behind ends with the process.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import pickle
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from parity.mutants.generate import Mutant
from parity.mutants.scope import Side, root

_PROJECT = ("bigbird_port", "models_torch", "models_flax", "parity", "tests")
Found = dict[str, Any]
DOING = "doing"


@dataclass(frozen=True)
class Job:
    """What a worker does.

    into: the side whose gate it is. gate, probes: where the stages and probes are listed, as "module.function".
    folder: for its files, shared with the others. stages, probes: names of those that are run, in this order. mutant:
    None to run the code as it is, and to keep the lines that run and what the probes return. cpu_seconds: a limit.
    """

    into: Side
    gate: str
    folder: Path
    stages: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    mutant: Mutant | None = None
    cpu_seconds: int = 0
    files: tuple[str, ...] = field(default=(), repr=False)


def work(job: Job, answer: Callable[[Found], None]) -> None:
    """Do a job and answer what was found; whatever it raises is an answer, too."""
    _settle(job)
    found: Found = {}
    try:
        if job.mutant:
            _install(job.mutant)
            found |= _judge(job)
        else:
            found |= _measure(job)
    except BaseException as error:  # a mutant may raise anything, and even leave the interpreter
        found |= {"raises": f"{type(error).__name__}: {error}"[:300]}
    answer(found)


def _settle(job: Job) -> None:
    """Forget the project's modules, speak to nobody, write into the job's folder, and take no more than is allowed."""
    for name in [name for name in sys.modules if name.partition(".")[0] in _PROJECT]:
        if not name.startswith("parity.mutants") and name != "parity":
            del sys.modules[name]
    if job.cpu_seconds:
        resource.setrlimit(resource.RLIMIT_CPU, (job.cpu_seconds, job.cpu_seconds + 5))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    tempfile.tempdir = str(own_folder(job, os.getpid()))
    Path(tempfile.tempdir).mkdir()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(job.folder / "compiled")
    if "jax" in sys.modules:
        config: Any = sys.modules["jax"].config
        config.update("jax_compilation_cache_dir", str(job.folder / "compiled"))
        config.update("jax_persistent_cache_min_compile_time_secs", 0)
        config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _judge(job: Job) -> Found:
    """Run the gate on a mutant until it is red; if it stays green, run the probes and see what is different."""
    stage = ""
    try:
        for one in _listed(job.gate, job.into, job.stages):
            stage = one.name
            _note(job, one.name)
            if red := one.run():
                return {"stage": one.name, "red": red}
    except BaseException as error:
        return {"stage": stage, "raises": f"{type(error).__name__}: {error}"[:300]}
    return {"differing": _first_difference(job)}


def _first_difference(job: Job) -> dict[str, str]:
    """The first probe that returns something else, and what; else those in which something is rounded."""
    rounded: dict[str, str] = {}
    for probe in _probes(job):
        _note(job, f"probe {probe.name}")
        try:
            how = importlib.import_module("parity.mutants.probes.probe").difference(_kept(job, probe.name), probe.run())
        except BaseException as error:
            how = f"{type(error).__name__}: {error}"[:300]
        if how == "rounding":
            rounded[probe.name] = how
        elif how:
            return {probe.name: how}
    return rounded


def _measure(job: Job) -> Found:
    """Run stages or probes on the code as it is: what is red, the seconds, and the lines that ran."""
    coverage = _coverage(job)
    coverage.start()
    begin, red = time.process_time(), ""
    try:
        for stage in _listed(job.gate, job.into, job.stages):
            red = red or stage.run()
        for probe in _probes(job):
            path = _place(job, probe.name)
            path.write_bytes(pickle.dumps(probe.run()))
    finally:
        coverage.stop()
    seconds, data = time.process_time() - begin, coverage.get_data()
    lines = {file: sorted(data.lines(str(root() / file)) or ()) for file in job.files}
    return {"red": red, "seconds": seconds, "lines": lines}


def _coverage(job: Job) -> Any:
    try:
        import coverage
    except ImportError:
        raise ValueError(
            "mutants are run on lines that are measured: install coverage (pip install coverage)"
        ) from None
    return coverage.Coverage(data_file=None, config_file=False, include=[str(root() / file) for file in job.files])


def _listed(path: str, into: Side, names: tuple[str, ...]) -> Iterator[Any]:
    """The stages of these names."""
    if not names:
        return
    module, _, function = path.rpartition(".")
    known = {stage.name: stage for stage in getattr(importlib.import_module(module), function)(into)}
    yield from (known[name] for name in names)


def _probes(job: Job) -> Iterator[Any]:
    if job.probes:
        known = {probe.name: probe for probe in importlib.import_module("parity.mutants.probes.probe").probes(job.into)}
        yield from (known[name] for name in job.probes)


def _place(job: Job, name: str) -> Path:
    return job.folder / f"probe {name}.pickle".replace("/", " ")


def _kept(job: Job, name: str) -> Any:
    return pickle.loads(_place(job, name).read_bytes())


def own_folder(job: Job, process: int) -> Path:
    """The folder of one process, for what it writes and for a note of what it is doing."""
    return job.folder / f"process-{process}"


def _note(job: Job, doing: str) -> None:
    """Note what a job is doing, so that it is known if it never ends."""
    (own_folder(job, os.getpid()) / DOING).write_text(doing)


def _install(mutant: Mutant) -> None:
    """Have Python import the mutant in place of its module."""
    path = root() / mutant.file
    code = compile(mutant.apply(path.read_bytes()), str(path), "exec", dont_inherit=True)

    class Loader(importlib.machinery.SourceFileLoader):
        def get_code(self, fullname: str) -> Any:
            return code

    class Finder:
        @staticmethod
        def find_spec(name: str, where: Any = None, target: ModuleType | None = None) -> Any:
            if name != mutant.module:
                return None
            own = [str(path.parent)] if path.name == "__init__.py" else None
            loader = Loader(name, str(path))
            return importlib.util.spec_from_file_location(name, path, loader=loader, submodule_search_locations=own)

    sys.meta_path.insert(0, Finder)
