"""Open the weights at a path, whatever kind of checkpoint it is."""

from __future__ import annotations

import glob
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bigbird_port.conversion.exports import find_exports
from bigbird_port.files.outputs.out_folder import TARGET_FOLDERS, check_out
from bigbird_port.files.reading import is_there
from bigbird_port.formats.detection.first_bytes import look
from bigbird_port.formats.detection.kinds import Reader, refusal, tell
from bigbird_port.formats.detection.nearby import describe_absent, describe_folder, holds_weights, names_in
from bigbird_port.formats.detection.typed import check_address
from bigbird_port.formats.flax.msgpack_reader import FlaxMsgpack, FlaxMsgpackShards
from bigbird_port.formats.flax.orbax_reader import open_orbax, orbax_items
from bigbird_port.formats.safetensors.reader import SafetensorsFile, SafetensorsShards, read_weight_map
from bigbird_port.formats.store import Store
from bigbird_port.formats.tensorflow.bundle_reader import TensorBundle
from bigbird_port.formats.tensorflow.locate import (
    STATE_FILE,
    find_checkpoint,
    find_flags,
    is_part,
    is_state,
    refuse_stand_in,
)
from bigbird_port.formats.tensorflow.saved_model import SavedModel, open_saved_model, saved_by_objects
from bigbird_port.formats.torch.reader import TorchBin, TorchBinShards

Style = Literal["original", "saved-model", "torch", "flax", "neutral"]
NEUTRAL_FILE = "model.neutral.safetensors"
NEUTRAL_FORMAT = "bigbird-port neutral"
# What counts in a folder, in this order, besides TensorFlow's and Orbax's files, which have no fixed names.
_NEUTRAL_FILES = (NEUTRAL_FILE,)
_TORCH_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_FLAX_FILES = ("flax_model.msgpack", "flax_model.msgpack.index.json")


@dataclass(frozen=True)
class Opened:
    """Weights that were found. path: the folder, file or TensorFlow prefix; style: whose names its tensors have.

    config_file: the configuration beside the weights, if there is one. notes: what is out of the ordinary.
    """

    path: Path
    style: Style
    store: Store
    config_file: Path | None
    notes: tuple[str, ...] = ()


def open_store(path: Path, config_file: Path | None = None) -> Opened:
    """Open a TensorFlow checkpoint, a SavedModel, a torch, Flax or neutral folder or file, or what convert wrote.

    config_file: to be taken instead of what lies beside the weights. Raises ValueError saying what was looked for
    and found, or naming the file and what is wrong with it, or what stands in a folder of convert's that it did not
    write.
    """
    try:
        if not path.exists():
            check_address(str(path))
        if config_file and config_file.is_file():
            _checked(config_file)
        check_out(path)
        return open_weights(path, config_file)
    except OSError as error:  # such as a name that is too long
        raise ValueError(f"{str(path)[:200]}: cannot be read: {error.strerror}") from None


def open_weights(path: Path, config_file: Path | None = None) -> Opened:
    """Open as open_store does, whatever else stands in a folder that convert wrote."""
    found = _open_folder(path, config_file) if path.is_dir() else _open_file(path, config_file)
    if found is None and path.is_dir():
        inner = next((path / name for name in TARGET_FOLDERS if (path / name).is_dir()), None)
        found = _open_folder(inner, config_file) if inner else None
    if found is None:
        raise ValueError(_nothing_found(path))
    return found


def _open_folder(folder: Path, config_file: Path | None) -> Opened | None:
    if is_there(folder / "saved_model.pb"):
        prefix = folder / "variables" / "variables"
        if not Path(f"{prefix}.index").exists():
            raise ValueError(f"{prefix}.index: missing, though saved_model.pb is there: fetch the folder variables")
        _refuse_stand_ins(prefix)
        variables = open_saved_model(folder)
        style: Style = "saved-model" if isinstance(variables, SavedModel) else "original"
        return Opened(folder, style, variables, config_file or _flags(folder / "saved_model"))
    if is_state(folder / STATE_FILE) or any(folder.glob("*.index")):
        return _open_prefix(find_checkpoint(folder), config_file)
    for name in (*_NEUTRAL_FILES, *_TORCH_FILES, *_FLAX_FILES):
        if is_there(file := folder / name):
            return _weights(folder, file, config_file)
    for orbax in (folder / "orbax", folder):
        if items := orbax_items(orbax):
            return Opened(folder, "flax", open_orbax(items), config_file or _config_in(folder))
    return None


def _open_file(path: Path, config_file: Path | None) -> Opened | None:
    if path.name == "saved_model.pb":
        return _open_folder(path.parent, config_file)
    if is_there(Path(f"{path}.index")) or (path.is_file() and is_part(path)):
        return _open_prefix(find_checkpoint(path), config_file)
    if is_there(path):
        return _weights(path, path, config_file)
    if any(path.parent.glob(f"{glob.escape(path.name)}.data-*")):
        find_checkpoint(path)  # says what is missing
    return None


def _open_prefix(prefix: Path, config_file: Path | None) -> Opened:
    _refuse_stand_ins(prefix)
    bundle = TensorBundle(prefix)
    if saved_by_objects(bundle):
        return Opened(prefix, "saved-model", SavedModel(bundle), config_file or _flags(prefix))
    return Opened(prefix, "original", bundle, config_file or _flags(prefix))


def _refuse_stand_ins(prefix: Path) -> None:
    """Raise ValueError where a file of a TensorFlow checkpoint is a pointer, or what a server answered."""
    for file in (Path(f"{prefix}.index"), *prefix.parent.glob(f"{glob.escape(prefix.name)}.data-?????-of-?????")):
        if file.is_file():
            refuse_stand_in(file, "a file of a TensorFlow checkpoint")


def _weights(path: Path, file: Path, config_file: Path | None) -> Opened | None:
    """Open one weight file or shard index; ``path`` is what it stands for."""
    if file.name.endswith(".index.json"):
        style, opener, notes = _shards(file)
    else:
        reader, notes = _reader(file)
        if reader is None:
            return None
        style, opener = _READERS[reader]
    store = opener(file)
    if isinstance(store, (SafetensorsFile, SafetensorsShards)):
        style = _safetensors_style(file, store.metadata)
    return Opened(path, style, store, config_file or _config_in(file.parent), notes)


def _shards(index: Path) -> tuple[Style, Callable[[Path], Store], tuple[str, ...]]:
    """What reads the shards of an index: the bytes of the shards tell, which must be of one kind."""
    refuse_stand_in(index, "the index of a model's shards")
    found: dict[Reader, str] = {}
    notes: tuple[str, ...] = ()
    for name in sorted(set(read_weight_map(index).values())):
        if not (file := index.parent / name).exists() and not file.is_symlink():
            raise ValueError(
                f"{file}: cannot be read: No such file or directory, though {index.name} names it: fetch it as well"
            )
        reader, more = _reader(file)
        found.setdefault(reader or "torch", name)
        notes += more
    if len(found) > 1:
        raise ValueError(f"{index}: its shards are of several kinds: {', '.join(found.values())}: expected one kind")
    style, opener = _SHARDS[next(iter(found))]
    return style, opener, notes


def _reader(file: Path) -> tuple[Reader | None, tuple[str, ...]]:
    """What reads a file: its first bytes tell, or where they are of no kind that is known, its name's ending.

    Raises ValueError, saying what it is, where nothing reads it.
    """
    start = look(file)
    kind = tell(start)
    by_name = _BY_SUFFIX.get(file.suffix)
    if kind is None:
        return by_name, ()
    if kind.reader is None:
        beside = f": {file.parent}" if not by_name and holds_weights(names_in(file.parent)) else ""
        raise ValueError(refusal(start, kind) + beside)
    if by_name and by_name != kind.reader:
        return kind.reader, (f"{file}: {kind.found} by its first bytes, though its name says {by_name}: read as that",)
    return kind.reader, ()


_READERS: dict[Reader, tuple[Style, Callable[[Path], Store]]] = {
    "safetensors": ("torch", SafetensorsFile),
    "torch": ("torch", TorchBin),
    "flax": ("flax", FlaxMsgpack),
}
_SHARDS: dict[Reader, tuple[Style, Callable[[Path], Store]]] = {
    "safetensors": ("torch", SafetensorsShards),
    "torch": ("torch", TorchBinShards),
    "flax": ("flax", FlaxMsgpackShards),
}
_BY_SUFFIX: dict[str, Reader] = {
    ".safetensors": "safetensors",
    ".bin": "torch",
    ".pt": "torch",
    ".pth": "torch",
    ".ckpt": "torch",
    ".msgpack": "flax",
}


def _safetensors_style(file: Path, metadata: dict[str, str]) -> Style:
    format_ = metadata.get("format")
    if format_ == NEUTRAL_FORMAT:
        return "neutral"
    if format_ == "flax" and file.name != NEUTRAL_FILE:
        return "flax"
    if file.name == NEUTRAL_FILE or format_ == "tf":
        expected = NEUTRAL_FORMAT if file.name == NEUTRAL_FILE else "pt"
        advice = "" if file.name == NEUTRAL_FILE else ": TensorFlow's names are not known; give torch's or Flax's files"
        raise ValueError(f"{file}: the format in its metadata is {format_!r}: expected {expected!r}{advice}")
    return "torch"


def _config_in(folder: Path) -> Path | None:
    return _checked(folder / "config.json") if is_there(folder / "config.json") else None


def _flags(prefix: Path) -> Path | None:
    found = find_flags(prefix)
    return _checked(found) if found else None


def _checked(file: Path) -> Path:
    refuse_stand_in(file, "a configuration in JSON")
    return file


def _nothing_found(path: Path) -> str:
    files = ", ".join((*_NEUTRAL_FILES, *_TORCH_FILES, *_FLAX_FILES))
    looked_for = (
        f"looked for a TensorFlow checkpoint (a prefix, *.index), a SavedModel (saved_model.pb), {files}, a checkpoint "
        f"of Orbax, and for the folders {', '.join(TARGET_FOLDERS)} that convert writes"
    )
    if path.is_dir() and (programs := find_exports(path)):
        return (
            f"{path}: it holds programs for other runtimes ({', '.join(programs)}), whose weights are not read back: "
            "give what they were made from"
        )
    if path.is_dir():
        return describe_folder(path, looked_for)
    if path.exists():
        return f"{path}: not a weight file that is known; {looked_for}"
    return describe_absent(path, looked_for)
