"""The files whose mutants are run: the models' own code, what is shared, and what converts weights."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

Side = Literal["torch", "flax"]
_SHARED = ("bigbird_port/sparse", "bigbird_port/schema", "bigbird_port/conversion")
# What reports, searches and writes to people; conversion proper is layout, naming and streaming.
_PASSED_OVER = (
    *("bigbird_port/conversion/" + name for name in ("diff.py", "inspect_source.py", "verify.py", "tokenizer.py")),
    *("bigbird_port/conversion/values/*", "bigbird_port/schema/reading/nearest.py"),
)


@dataclass(frozen=True)
class Source:
    """A file: its path under the project, the name of its module, and the framework that it is of, if of one."""

    file: str
    module: str
    framework: str

    @property
    def path(self) -> Path:
        """Where it lies."""
        return root() / self.file


def root() -> Path:
    """The folder that the project's packages lie in."""
    spec = importlib.util.find_spec("bigbird_port")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.parent


def sources(into: Side, only: str = "") -> list[Source]:
    """Return the files of a framework's side: its models, and what both share.

    only: a file, a folder, or a pattern of files. Raises ValueError if there is none.
    """
    found = []
    for room in (f"models_{into}", *_SHARED):
        for path in sorted((root() / room).rglob("*.py")):
            file = path.relative_to(root()).as_posix()
            if not any(fnmatch(file, pattern) for pattern in _PASSED_OVER):
                module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                found.append(Source(file, module, into if room.startswith("models_") else ""))
    wanted = only.strip("/")
    chosen = [
        x for x in found if not wanted or x.file == wanted or f"{wanted}/" in f"{x.file}/" or fnmatch(x.file, wanted)
    ]
    if not chosen:
        rooms = ", ".join((f"models_{into}", *_SHARED))
        raise ValueError(f"--only {only} is none of the files that have mutants: give a file or folder of {rooms}")
    return chosen
