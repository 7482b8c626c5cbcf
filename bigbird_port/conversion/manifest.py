"""The manifest of a conversion: enough to verify its output offline, years later (docs/manifest.schema.json)."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigbird_port.families.configuration import Configuration, described
from bigbird_port.families.registry import config_from, find_head
from bigbird_port.files.digests import file_digest
from bigbird_port.files.json_object import read_json_object
from bigbird_port.installed import version_of
from bigbird_port.schema.table import SCHEMA_VERSION, dims, weights_of

if TYPE_CHECKING:
    from bigbird_port.conversion.plan import Plan
    from bigbird_port.conversion.streaming import Written
    from bigbird_port.conversion.targets import TargetName
    from bigbird_port.conversion.values.content import Finding

MANIFEST = "manifest.json"
MANIFEST_VERSION = 2
_PACKAGES = (
    "bigbird-port",
    "numpy",
    "ml_dtypes",
    "google-crc32c",
    "safetensors",
    "msgpack",
    "flax",
    "orbax-checkpoint",
)


@dataclass(frozen=True)
class Manifest:
    """A manifest that was read; ``values`` are its JSON."""

    path: Path
    values: dict[str, Any]
    config: Configuration

    @property
    def targets(self) -> list[str]:
        """Names of the targets that were written."""
        return list(self.values["targets"])

    @property
    def head(self) -> str:
        """The head that was written."""
        return str(self.values["head"])

    def digests(self, target: str) -> dict[str, str]:
        """sha256 of each weight of one target, canonical layout, by canonical name."""
        tensors = self.values["tensors"].items()
        return {name: entry["sha256"] for name, entry in tensors if target in entry["names"]}

    def files(self, target: str) -> list[dict[str, Any]]:
        """Name, size and sha256 of each file of one target."""
        return list(self.values["targets"][target]["files"])


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that take part in a conversion, as far as they are installed."""
    installed = {package: version for package in _PACKAGES if (version := version_of(package))}
    return {"python": platform.python_version()} | installed


def file_record(name: str, size: int, sha256: str) -> dict[str, Any]:
    """What a manifest says of one file."""
    return {"name": name, "size": size, "sha256": sha256}


def record_of(path: Path, name: str, hashed: bool = True) -> dict[str, Any]:
    """Return the same of a file that is there, under a name; without its sha256 unless ``hashed``."""
    return file_record(name, path.stat().st_size, file_digest(path) if hashed else "")


def self_digest(values: dict[str, Any]) -> str:
    """sha256 of a manifest's own values (without "digest"), keys sorted, so that a changed manifest is seen."""
    own = {name: value for name, value in values.items() if name != "digest"}
    return hashlib.sha256(json.dumps(own, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def manifest_values(
    plan: Plan,
    written: Written,
    findings: Sequence[Finding],
    source_files: list[dict[str, Any]],
    files: Mapping[TargetName, list[Future[dict[str, Any]]]],
) -> dict[str, Any]:
    """Return what a manifest says of a conversion.

    source_files: records of the source's files; files: of each target's, once they are read back.
    """
    shapes = {row.name: row.shape(plan.config) for row in weights_of(plan.config, plan.head, "torch")}
    hows = dict.fromkeys(plan.match.sources, "converted") | plan.match.fills | plan.extended
    vocabulary = plan.vocabulary and record_of(plan.vocabulary, plan.vocabulary.name)
    training = {"training": _training_values(plan, written)} if plan.training else {}
    source = {"style": plan.source.opened.style, "name": plan.source.opened.path.name, "files": source_files}
    return {
        "versions": versions(),
        "source": source | ({"passed_over": list(plan.passed_over)} if plan.passed_over else {}) | plan.source.part,
        "head": plan.head,
        "config": described(plan.config, plan.head),
        "dtype": plan.settings.dtype,
        "init_seed": plan.settings.seed,
        "vocabulary": vocabulary,
        "added_tokens": plan.tokenizer.records() if plan.tokenizer else [],
        "targets": {name: {"files": [record.result() for record in records]} for name, records in files.items()},
        "tensors": {
            name: {
                "source": plan.match.sources.get(name),
                "how": hows[name],
                "names": {target.name: target.places[name].name for target in plan.kept if name in target.places},
                "shape": list(shapes[name]),
                "dtype": plan.settings.dtype,
                "sha256": content.sha256,
                "largest_rounding": written.roundings[name].error,
            }
            for name, content in sorted(written.contents.items())
        },
        **training,
        "source_names": {
            name: {"fate": fate.what, "detail": fate.detail} for name, fate in sorted(plan.match.fates.items())
        },
        "findings": [{"kind": finding.kind, "weight": finding.weight, "text": finding.text} for finding in findings],
    }


def _training_values(plan: Plan, written: Written) -> dict[str, Any]:
    """What a manifest says of a training state: the state, and every slot."""
    assert plan.training is not None
    return {
        "state": plan.training.state.to_json(),
        "slots": {
            carried.slot.name: {
                "source": carried.source,
                "how": carried.how,
                "names": {
                    target.name: target.places[carried.slot.name].name
                    for target in plan.kept
                    if carried.slot.name in target.places
                },
                "shape": list(carried.slot.shape(dims(plan.config))),
                "sha256": written.state[carried.slot.name].sha256,
            }
            for carried in sorted(plan.training.slots, key=lambda carried: carried.slot.name)
        },
    }


def write_manifest(path: Path, values: dict[str, Any]) -> None:
    """Write a manifest, its version, its schema's version and its own digest added."""
    values = {"manifest_version": MANIFEST_VERSION, "schema_version": SCHEMA_VERSION, **values}
    path.write_text(manifest_text(values | {"digest": self_digest(values)}), encoding="utf-8")


def manifest_text(values: dict[str, Any]) -> str:
    """The one text that a manifest of these values has."""
    return json.dumps(values, indent=1) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Read what ``write_manifest`` wrote; raises ValueError naming the file and what is wrong with it."""
    path = folder / MANIFEST
    values = read_json_object(path)
    version = values.get("manifest_version")
    if version != MANIFEST_VERSION:
        raise ValueError(
            f"{path}: manifest_version is {version!r}, expected {MANIFEST_VERSION}: convert the checkpoint again"
        )
    if values.get("digest") != self_digest(values):
        raise ValueError(f"{path}: it was changed after it was written: its own digest does not fit")
    try:
        _check_shape(values)
        config = config_from(values["config"], str(path))
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{path}: not a manifest of this version: convert the checkpoint again") from None
    return Manifest(path, values, config)


def _check_shape(values: dict[str, Any]) -> None:
    """Raise KeyError, TypeError or ValueError unless everything that is read later is there."""
    find_head(values["head"])
    if not isinstance(values["init_seed"], int) or not isinstance(values["dtype"], str):
        raise TypeError
    if values["vocabulary"] is not None:
        _check_files([values["vocabulary"]])
    for token in values.get("added_tokens", []):
        if not isinstance(token["id"], int) or not isinstance(token["content"], str):
            raise TypeError
    for target in values["targets"].values():
        _check_files(target["files"])
    if not isinstance(values.get("exports", {}), dict):
        raise TypeError
    _check_files(values["source"]["files"])
    if not isinstance(values["source"].get("subtree", ""), str) or values["source"].get("ema", False) not in (0, 1):
        raise TypeError
    for entry in values["tensors"].values():
        texts = [entry["sha256"], entry["how"], entry["dtype"], *entry["names"].values()]
        if not all(isinstance(text, str) for text in texts) or not isinstance(entry["shape"], list):
            raise TypeError
        if entry["source"] is not None and not isinstance(entry["source"], str):
            raise TypeError
    for entry in values["training"]["slots"].values() if "training" in values else ():
        if not all(isinstance(text, str) for text in (entry["sha256"], entry["how"], *entry["names"].values())):
            raise TypeError


def _check_files(files: Iterable[dict[str, Any]]) -> None:
    for file in files:
        if not (isinstance(file["name"], str) and isinstance(file["size"], int) and isinstance(file["sha256"], str)):
            raise TypeError
