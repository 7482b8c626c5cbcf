"""What a run on a device found, as one JSON: written whole, as each part ends."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import json
import platform
from pathlib import Path
from typing import Any

Record = dict[str, Any]
PACKAGES = ("numpy", "torch", "triton", "jax", "jaxlib", "flax", "optax", "transformers", "pytest", "google_crc32c",
            "ml_dtypes", "safetensors", "threadpoolctl", "hypothesis")  # fmt: skip
DONE, FAILED, TIMED_OUT, ABSENT, NOT_REACHED = "done", "failed", "out of time", "absent", "not reached"


def began(device: str, small: bool) -> Record:
    """Return a record without parts."""
    return {
        "version": 1,
        "device": device,
        "small": small,
        "begun": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "python": platform.python_version(),
        "packages": {name: version_of(name) for name in PACKAGES},
        "parts": [],
    }


def is_there(package: str) -> bool:
    """Return whether a package can be imported, without doing so."""
    return importlib.util.find_spec(package) is not None


def version_of(package: str) -> str:
    """Return the version of a package, or that it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown" if is_there(package) else ABSENT


def part_passed(part: Record) -> bool:
    """Return whether a part ended, and nothing in it failed."""
    return part["state"] == DONE and all(one.get("passed") is not False for one in part["found"])


def passed(record: Record) -> bool:
    """Return whether all parts passed; what is absent was not asked."""
    asked = [part for part in record["parts"] if part["state"] != ABSENT]
    return bool(asked) and all(map(part_passed, asked))


def write(record: Record, path: Path) -> None:
    """Write a record, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    values = record | {"passed": passed(record)}
    partial.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)
