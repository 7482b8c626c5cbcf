"""Find the checkpoint that a path means, and the flags JSON and the vocabulary beside it."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from bigbird_port.checkpoint.links import check_link, file_size
from bigbird_port.json_object import read_json_object
from bigbird_port.reading import is_there, read_whole

_STATE_LINE = re.compile(r'^model_checkpoint_path:\s*"(.*)"\s*$', re.MULTILINE)
_MAX_STATE_BYTES = 1 << 20  # it lists the checkpoints that a training run kept, a line each


def find_checkpoint(path: Path) -> Path:
    """Return the prefix of a TensorFlow checkpoint given as prefix, .index file or folder.

    In a folder the newest counts: the one that its ``checkpoint`` file names, or the only one there.
    Raises ValueError naming the path and what to give instead.
    """
    if path.is_dir():
        return _newest(path)
    prefix = path.with_suffix("") if path.suffix == ".index" else path
    if is_there(Path(f"{prefix}.index")):
        return prefix
    if list(path.parent.glob(f"{path.name}.data-*")):
        raise ValueError(f"{prefix}.index: missing, though data files with this prefix are there: fetch it as well")
    if path.exists():
        raise ValueError(
            f"{path}: not a TensorFlow checkpoint: give its prefix (model.ckpt-1000), its .index file or its folder"
        )
    raise ValueError(
        f"{path}: there is no such checkpoint (no {prefix.name}.index in {path.parent}) and no such folder"
    )


def _newest(folder: Path) -> Path:
    state = folder / "checkpoint"
    if is_there(state):
        if file_size(state) > _MAX_STATE_BYTES:
            raise ValueError(f"{state}: it has more than {_MAX_STATE_BYTES} bytes: expected a few lines")
        named = _STATE_LINE.search(read_whole(state, _MAX_STATE_BYTES).decode("utf-8", errors="replace"))
        if not named:
            raise ValueError(f"{state}: expected a line 'model_checkpoint_path: \"...\"', found none")
        # The path recorded is often that of the machine that trained: the name counts, in this folder.
        prefix = folder / named[1].replace("\\", "/").rsplit("/", 1)[-1]
        if not is_there(Path(f"{prefix}.index")):
            raise ValueError(f"{state}: it names {prefix.name}, but {prefix.name}.index is not in {folder}")
        return prefix
    found = sorted(folder.glob("*.index"))
    if len(found) == 1:
        return found[0].with_suffix("")
    if not found:
        raise ValueError(f"{folder}: no TensorFlow checkpoint in this folder (no 'checkpoint' file, no *.index)")
    names = ", ".join(file.stem for file in found)
    raise ValueError(f"{folder}: several checkpoints and no 'checkpoint' file to name the newest; give one of {names}")


def find_shards(path: Path) -> list[Path]:
    """Return the data files of a TensorFlow checkpoint given as to find_checkpoint; none where anything is wrong."""
    try:
        prefix = find_checkpoint(path)
        shards = sorted(prefix.parent.glob(f"{glob.escape(prefix.name)}.data-?????-of-?????"))
        return [shard for shard in shards if file_size(shard)]
    except (OSError, ValueError):
        return []


def find_flags(prefix: Path) -> Path | None:
    """Return the JSON beside a checkpoint that holds the model's configuration, or None.

    Raises ValueError if several could be meant.
    """
    candidates = [*sorted(prefix.parent.glob("*.config")), prefix.parent / "config.json"]
    found = [path for path in candidates if is_there(path) and "hidden_size" in read_json_object(path)]
    if len(found) > 1:
        raise ValueError(
            f"several configurations lie beside {prefix}: {', '.join(map(str, found))}; choose one by --config"
        )
    return found[0] if found else None


def find_vocabulary(prefix: Path, flags: Path | None) -> Path | None:
    """Return the SentencePiece file beside a checkpoint: the flags' vocab_model_file by its name, or the only *.model.

    None if there is neither. The flags' folder is that of the machine that trained, and a stranger's flags could name
    any file of this one: nothing but the name counts. Raises ValueError if several could be meant, or for a link out
    of the folder.
    """
    named = read_json_object(flags).get("vocab_model_file") if flags else None
    found = sorted(prefix.parent.glob("*.model"))
    if isinstance(named, str) and named:
        name = named.replace("\\", "/").rsplit("/", 1)[-1]
        meant = [path for path in (prefix.parent / name, prefix.parent / f"{name}.model") if is_there(path)]
        found = meant[:1] or found
    found = [path for path in found if is_there(path)]
    for path in found:
        check_link(path)
    if len(found) > 1:
        names = ", ".join(map(str, found))
        raise ValueError(f"several vocabularies lie beside {prefix}: {names}; choose one by --vocab")
    return found[0] if found else None
