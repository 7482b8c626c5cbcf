"""Find the checkpoint that a path means, and the flags JSON and the vocabulary beside it."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from bigbird_port.files.json_object import read_json_object
from bigbird_port.files.reading import is_there, read_whole
from bigbird_port.formats.detection.first_bytes import look
from bigbird_port.formats.detection.kinds import refusal, tell
from bigbird_port.formats.links import check_link, file_size

STATE_FILE = "checkpoint"
_PART = re.compile(r"(.+)\.(index|meta|data-\d{5}-of-\d{5})")
_STATE_LINE = re.compile(r'^model_checkpoint_path:\s*"(.*)"\s*$', re.MULTILINE)
_MAX_STATE_BYTES = 1 << 20  # it lists the checkpoints that a training run kept, a line each


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts names with their numbers by size: model.ckpt-500 before model.ckpt-1000."""
    parts = re.split(r"([0-9]{1,18})", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def find_checkpoint(path: Path) -> Path:
    """Return the prefix of a TensorFlow checkpoint given as prefix, folder or any of its files.

    In a folder the newest counts: the one that its ``checkpoint`` file names, or the only one there.
    Raises ValueError naming the path and what to give instead.
    """
    if path.is_dir():
        return _newest(path)
    if is_there(Path(f"{path}.index")):
        return path
    if path.name == STATE_FILE and is_there(path):
        return _newest(path.parent)
    part = _PART.fullmatch(path.name)
    prefix = path.with_name(part[1]) if part else path
    if is_there(Path(f"{prefix}.index")):
        return prefix
    if list(prefix.parent.glob(f"{glob.escape(prefix.name)}.data-*")):
        raise ValueError(f"{prefix}.index: missing, though data files with this prefix are there: fetch it as well")
    if part and path.is_file():
        raise ValueError(f"{path}: a file of a TensorFlow checkpoint whose {prefix.name}.index is missing: fetch it")
    if path.exists():
        raise ValueError(
            f"{path}: not a TensorFlow checkpoint: give its prefix (model.ckpt-1000), its .index file or its folder"
        )
    raise ValueError(
        f"{path}: there is no such checkpoint (no {prefix.name}.index in {path.parent}) and no such folder"
    )


def is_part(path: Path) -> bool:
    """Whether a file is, by its name, one of a TensorFlow checkpoint's or names the newest of them."""
    return bool(_PART.fullmatch(path.name)) or (path.name == STATE_FILE and is_state(path))


def is_state(file: Path) -> bool:
    """Whether a file named ``checkpoint`` names TensorFlow's newest; Flax calls its weights so as well."""
    if not file.is_file():
        return False
    kind = tell(look(file))
    return kind is None or kind.reader is None


def _newest(folder: Path) -> Path:
    state = folder / STATE_FILE
    if is_there(state):
        if file_size(state) > _MAX_STATE_BYTES:
            raise ValueError(f"{state}: it has more than {_MAX_STATE_BYTES} bytes: expected a few lines")
        refuse_stand_in(state, "a few lines that name the newest checkpoint")
        named = _STATE_LINE.search(read_whole(state, _MAX_STATE_BYTES).decode("utf-8", errors="replace"))
        if not named:
            raise ValueError(f"{state}: expected a line 'model_checkpoint_path: \"...\"', found none{_there(folder)}")
        # The path recorded is often that of the machine that trained: the name counts, in this folder.
        prefix = folder / named[1].replace("\\", "/").rsplit("/", 1)[-1]
        if not is_there(Path(f"{prefix}.index")):
            raise ValueError(
                f"{state}: it names {prefix.name}, but {prefix.name}.index is not in {folder}{_there(folder)}"
            )
        return prefix
    found = prefixes(folder)
    if len(found) == 1:
        return folder / found[0]
    if not found:
        raise ValueError(f"{folder}: no TensorFlow checkpoint in this folder (no 'checkpoint' file, no *.index)")
    names = ", ".join(found)
    raise ValueError(f"{folder}: several checkpoints and no 'checkpoint' file to name the newest; give one of {names}")


def prefixes(folder: Path) -> list[str]:
    """The names of the TensorFlow checkpoints in a folder, sorted, numbers by their size."""
    found = [file.name.removesuffix(".index") for file in folder.glob("*.index")]
    return sorted(found, key=natural)


def _there(folder: Path) -> str:
    """An offer of the checkpoints in a folder."""
    found = prefixes(folder)
    if not found:
        return f": fetch it, or give a folder with a checkpoint; {folder} holds none"
    return f": give {'one of ' if len(found) > 1 else ''}{', '.join(found[:10])}"


def refuse_stand_in(file: Path, expected: str) -> None:
    """Raise ValueError, saying what it is, where a pointer or a server's answer stands in place of a file."""
    start = look(file)
    kind = tell(start)
    if kind and kind.stand_in:
        raise ValueError(refusal(start, kind, expected))


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

    Raises ValueError if several could be meant, or if one is a pointer or a server's answer in its place.
    """
    named = (prefix.parent / name for name in ("config.json", "bert_config.json"))
    candidates = [*sorted(prefix.parent.glob("*.config")), *named]
    there = [path for path in candidates if is_there(path)]
    for path in there:
        refuse_stand_in(path, "a configuration in JSON")
    found = [path for path in there if "hidden_size" in read_json_object(path)]
    if len(found) > 1:
        raise ValueError(
            f"several configurations lie beside {prefix}: {', '.join(map(str, found))}; choose one by --config"
        )
    return found[0] if found else None


def find_vocabulary(prefix: Path, flags: Path | None) -> Path | None:
    """Return the SentencePiece file beside a checkpoint: the flags' vocab_model_file by its name, or the only *.model.

    None if there is neither. The flags' folder is that of the machine that trained, and a stranger's flags could name
    any file of this one: nothing but the name counts. Raises ValueError if several could be meant, for a link out of
    the folder, or for a pointer or a server's answer in its place.
    """
    named = named_vocabulary(flags)
    found = sorted(prefix.parent.glob("*.model"))
    if named:
        name = named.replace("\\", "/").rsplit("/", 1)[-1]
        meant = [path for path in (prefix.parent / name, prefix.parent / f"{name}.model") if is_there(path)]
        found = meant[:1] or found
    found = [path for path in found if is_there(path)]
    for path in found:
        check_link(path)
    if len(found) > 1:
        names = ", ".join(map(str, found))
        raise ValueError(f"several vocabularies lie beside {prefix}: {names}; choose one by --vocab")
    if found:
        refuse_stand_in(found[0], "a SentencePiece vocabulary")
    return found[0] if found else None


def named_vocabulary(flags: Path | None) -> str | None:
    """The vocab_model_file that the flags name, as it stands there; None where they name none."""
    named = read_json_object(flags).get("vocab_model_file") if flags else None
    return named if isinstance(named, str) and named else None


def vocabulary_note(vocabulary: Path | None, flags: Path | None) -> str:
    """What to say of the vocabulary that was found, or of the one that is named and is not there."""
    named = named_vocabulary(flags)
    if vocabulary is None:
        absent = f": {flags} names {named}, which is not there" if named else ""
        return f"no vocabulary found{absent}: no tokenizer is written; give one by --vocab FILE"
    name = named.replace("\\", "/").rsplit("/", 1)[-1] if named else vocabulary.name
    other = "" if vocabulary.name in (name, f"{name}.model") else f" ({flags} names {named}, which is not there)"
    return f"vocabulary from {vocabulary}{other}"


def find_tokenizer(path: Path) -> Path | None:
    """Return the tokenizer.json of a source, or None; raises ValueError for a link out of the folder."""
    file = (path if path.is_dir() else path.parent) / "tokenizer.json"
    if not file.is_file():
        return None
    check_link(file)
    return file
