"""Model folders: config.json and one weight file, as convert writes them and transformers reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_port.conversion.manifest import MANIFEST, read_manifest
from bigbird_port.conversion.source import Source, find_part
from bigbird_port.families.configuration import Configuration, described
from bigbird_port.families.registry import config_from, find_head, read_config
from bigbird_port.files.json_object import read_json_object
from bigbird_port.files.outputs.out_folder import check_out
from bigbird_port.files.reading import is_there
from bigbird_port.formats.file_plan import Format
from bigbird_port.formats.filling import write_arrays
from bigbird_port.formats.flax.msgpack_writer import FlaxMsgpackFormat
from bigbird_port.formats.open_store import open_store
from bigbird_port.formats.runs import RunStore
from bigbird_port.formats.safetensors.writer import SafetensorsFormat
from bigbird_port.formats.store import Store, read
from bigbird_port.schema.table import Framework, weights_of
from bigbird_port.schema.weights import Arrays, complete, digest, from_framework, to_framework

WEIGHT_FILES: dict[Framework, str] = {"torch": "model.safetensors", "flax": "flax_model.msgpack"}
_FORMATS: dict[Framework, Format] = {"torch": SafetensorsFormat({"format": "pt"}), "flax": FlaxMsgpackFormat()}
Reader = Callable[[Path], dict[str, np.ndarray]]


@dataclass(frozen=True)
class ModelFolder:
    """What a model folder holds; ``weights`` are canonical, ``config`` is of some family."""

    path: Path
    config: Any
    head: str
    weights: dict[str, np.ndarray]


def write_model_folder(path: Path, weights: Arrays, config: Configuration, head: str, framework: Framework) -> None:
    """Write config.json and the weight file of one framework into an existing folder."""
    values = described(config, head)
    (path / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    arrays = to_framework(weights, config, head, framework)
    write_arrays(path, _FORMATS[framework], arrays)


def read_model_folder(
    path: Path,
    framework: Framework,
    readers: Mapping[str, Reader] | None = None,
    use_safetensors: bool | None = None,
    alone: tuple[Configuration, str] | None = None,
) -> ModelFolder:
    """Read a model folder, or the ``torch`` or ``flax`` folder in what convert wrote.

    readers: more weight files, by name, that count where the usual ones are absent, and what reads them.
    use_safetensors: read no other weight files (True), or not these (False). alone: configuration and head of weights
    that no config.json stands beside, as a Trainer's checkpoints. Raises ValueError naming the file and what is wrong
    with it.
    """
    folder = _locate(path, framework)
    if alone is not None and not (folder / "config.json").exists():
        config, head = alone
    else:
        values = read_json_object(folder / "config.json")
        config = config_from(values, str(folder / "config.json"))
        head = _head_of(values, folder)
    file, arrays = _read_arrays(folder, framework, readers or {}, use_safetensors)
    arrays = {name: array for name, array in arrays.items() if not name.endswith(config.family.buffers)}
    try:
        return ModelFolder(folder, config, head, from_framework(arrays, config, head, framework, any_pooler=True))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def read_folder_config(path: Path, framework: Framework) -> Any:
    """Read the configuration alone of what read_model_folder reads; raises ValueError likewise."""
    return read_config(_locate(path, framework) / "config.json")


def _locate(path: Path, framework: Framework) -> Path:
    """The folder with the model in it: ``path``, or the framework's in what convert wrote."""
    check_out(path)
    folder = path
    if not is_there(path / "config.json") and is_there(path / framework / "config.json"):
        folder = path / framework
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder; make it with 'bigbird-port convert TF_CKPT {path}'")
    return folder


def load_weights(
    path: str | Path,
    head: str,
    framework: Framework,
    init_seed: int | None,
    overrides: dict[str, Any],
    readers: Mapping[str, Reader] | None = None,
) -> tuple[Any, dict[str, np.ndarray], list[str]]:
    """Return configuration, arrays under the framework's names, and initialised canonical names for one head.

    ``overrides`` change the configuration; ``init_seed`` None makes a weight that the folder lacks an error.
    ``readers``: as for read_model_folder.
    """
    folder = read_model_folder(Path(path), framework, readers)
    config = folder.config.replace(**overrides)
    weights, initialised = complete_folder(folder, config, head, framework, init_seed)
    return config, to_framework(weights, config, head, framework), initialised


def complete_folder(
    folder: ModelFolder, config: Configuration, head: str, framework: Framework, init_seed: int | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the canonical weights of ``head``, and the names of those initialised from ``init_seed``.

    What the folder's class has no place for (Flax's pooler under some heads) is taken from another target that convert
    wrote beside it, so that all targets of a conversion are one model. Raises ValueError as ``complete``.
    """
    absent = [row.name for row in weights_of(config, head, framework) if row.name not in folder.weights]
    try:
        return complete(folder.weights | weights_beside(folder.path, absent), config, head, framework, init_seed)
    except ValueError as error:
        raise ValueError(f"{folder.path}: {error}") from None


def weights_beside(folder: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Those of ``names`` that the manifest says other targets hold; a value that is not the manifest's is none."""
    out = folder.parent
    if not names or not (out / MANIFEST).is_file():
        return {}
    manifest = read_manifest(out)
    found: dict[str, np.ndarray] = {}
    for target in manifest.targets if folder.name in manifest.targets else ():
        held = manifest.digests(target)
        wanted = [name for name in names if name in held and name not in found]
        if target == folder.name or not wanted:
            continue
        source = Source(open_store(out / target), manifest.config, manifest.head, ())
        match = source.match(manifest.head)
        stored = match.sources | match.unused
        for name in wanted:
            values = source.weight(name, stored[name])
            if held[name] in ("", digest(values)):  # without checksums there is nothing to compare it with
                found[name] = values
    return found


def _head_of(values: dict[str, Any], folder: Path) -> str:
    architectures = values.get("architectures")
    if not isinstance(architectures, list) or len(architectures) != 1 or not isinstance(architectures[0], str):
        raise ValueError(
            f"{folder / 'config.json'}: architectures is {architectures!r}, expected one class name such as "
            "['BigBirdForMaskedLM']: it says whose weights these are"
        )
    return find_head(architectures[0]).name


def _read_arrays(
    folder: Path, framework: Framework, readers: Mapping[str, Reader], use_safetensors: bool | None
) -> tuple[Path, dict[str, np.ndarray]]:
    """The first of the weight files that count for a framework, and what it holds by its own names."""

    def counts(name: str) -> bool:
        return use_safetensors is None or use_safetensors == ("safetensors" in name)

    for name in filter(counts, _WEIGHT_NAMES[framework]):
        if is_there(folder / name) or (folder / name).is_dir():
            return folder / name, _read_part(folder / name)
    for name in filter(counts, readers):
        if is_there(folder / name):
            return folder / name, readers[name](folder / name)
    if use_safetensors is not None:
        raise ValueError(
            f"{folder}: use_safetensors is {use_safetensors}, but there is no weight file of that kind: leave it out"
        )
    raise ValueError(f"{folder / WEIGHT_FILES[framework]}: cannot be read: No such file or directory")


def _read_part(file: Path) -> dict[str, np.ndarray]:
    """The arrays of the part of a file that holds the weights, under today's names."""
    opened = open_store(file)
    store = opened.store
    shapes = {name: stored.shape for name, stored in store.tensors.items()}
    try:
        subtree = find_part(shapes, opened.style)
    except ValueError as error:
        raise ValueError(f"{file}: {error}, or convert it with --subtree NAME first") from None
    return {
        name: _mapped_or_read(store, own) for name, own in subtree.names.items() if store.tensors[own].dtype is not None
    }


def _mapped_or_read(store: Store, name: str) -> np.ndarray:
    mapped = store.mapped(name) if isinstance(store, RunStore) else None
    return read(store, name) if mapped is None else mapped


# What counts beside config.json, in this order.
_WEIGHT_NAMES: dict[Framework, tuple[str, ...]] = {
    "torch": (
        WEIGHT_FILES["torch"],
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ),
    "flax": (WEIGHT_FILES["flax"], "flax_model.msgpack.index.json", "orbax"),
}
