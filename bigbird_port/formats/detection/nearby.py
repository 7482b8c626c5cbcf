"""What lies one step beside a path that holds no weights: in folders below it, above it, or under a like name.

Little is looked at: a bounded number of names, and no link is followed.
"""

from __future__ import annotations

import difflib
import os
import re
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from bigbird_port.files.reading import read_text
from bigbird_port.formats.detection.first_bytes import look
from bigbird_port.formats.detection.kinds import refusal, tell
from bigbird_port.formats.detection.typed import check_hub_name
from bigbird_port.formats.links import file_size
from bigbird_port.formats.tensorflow.locate import natural

MAX_NAMES = 5000  # that are looked at in all
MAX_LEVELS = 3  # of folders below the path: a hub's cache has models--X/snapshots/REVISION
_SHOWN = 10
_FOLDERS = 50  # in a folder that are looked into for parts of a checkpoint
WEIGHT_FILES = frozenset(
    {
        "model.neutral.safetensors",
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "flax_model.msgpack",
        "flax_model.msgpack.index.json",
        "saved_model.pb",
        "_METADATA",
    }
)
_VARIANT = re.compile(
    r".*\.(safetensors|bin|msgpack|pt|pth|ckpt|pkl|pickle|h5|keras|npz|onnx|gguf|pb|zip|tar|gz|tgz)|checkpoint_\d+"
)
# What training and tokenizers keep beside the weights under such endings.
_BESIDE = re.compile(
    r"(training_args|optimizer|scheduler|scaler|rng_state.*|random_states.*|.*optim_states)\.(bin|pt|pth)"
)
_DESCRIPTIONS = frozenset(
    {"config.json", "bert_config.json", "tokenizer.json", "tokenizer_config.json", "spiece.model"}
)
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.(?:safetensors|bin|msgpack))")
_DATA = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder without weights that are read: told by the names in it, what it is, and the next step."""

    is_one: Callable[[Collection[str]], bool]
    found: str
    next_step: str


FOLDER_KINDS: tuple[FolderKind, ...] = (
    FolderKind(
        lambda names: "adapter_config.json" in names or any(name.startswith("adapter_model.") for name in names),
        "an adapter (LoRA or another of peft), which is no model",
        "merge it into its model first: peft.PeftModel.from_pretrained(MODEL, ADAPTER).merge_and_unload()"
        ".save_pretrained(FOLDER), and convert FOLDER",
    ),
    FolderKind(
        lambda names: "zero_to_fp32.py" in names or any(name.endswith("_model_states.pt") for name in names),
        "a checkpoint of DeepSpeed, in parts",
        "make one file of it: python zero_to_fp32.py . pytorch_model.bin",
    ),
    FolderKind(
        lambda names: ".metadata" in names and any(name.endswith(".distcp") for name in names),
        "a distributed checkpoint of torch, in parts",
        "make one file of it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER "
        "pytorch_model.bin",
    ),
    FolderKind(
        lambda names: any(_SHARD.fullmatch(name) for name in names),
        "shards of a model without their index (such as model.safetensors.index.json)",
        "fetch the index as well",
    ),
    FolderKind(
        lambda names: any(name.endswith((".incomplete", ".part", ".crdownload", ".aria2")) for name in names),
        "downloads that did not end",
        "fetch them again",
    ),
    FolderKind(
        lambda names: any(_DATA.fullmatch(name) or name.endswith(".meta") for name in names),
        "files of a TensorFlow checkpoint without its .index",
        "fetch that as well",
    ),
)


def holds_weights(names: Collection[str]) -> bool:
    """Whether a folder with these names in it is one that can be given."""
    return not WEIGHT_FILES.isdisjoint(names) or any(name.endswith(".index") for name in names)


def names_in(folder: Path, limit: int = MAX_NAMES) -> list[str]:
    """The first names in a folder, sorted, numbers by their size; empty where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name for entry, _ in zip(entries, range(limit), strict=False)), key=natural)
    except OSError:
        return []


def folders_below(folder: Path) -> list[str]:
    """Folders below one that hold weights, relative to it: what a hub's refs/main names first, then by name."""
    found: list[str] = []
    left, waiting = MAX_NAMES, deque([(folder, 0)])
    while waiting and left > 0:
        at, level = waiting.popleft()
        names = names_in(at, left)
        left -= len(names)
        if level and holds_weights(names):
            found.append(_whole_model(at, folder).relative_to(folder).as_posix())
            continue
        if level < MAX_LEVELS:
            inner = [at / name for name in names if not name.startswith(".") and name != "blobs"]
            waiting.extend((path, level + 1) for path in inner if not path.is_symlink() and path.is_dir())
    return sorted(set(found), key=lambda name: (not _is_main(folder / name), natural(name)))


def _whole_model(at: Path, folder: Path) -> Path:
    """What to give for weights that lie at ``at`` below ``folder``: the folder that holds their config.json, too.

    That is the one around ``orbax``, and around the items of a step that Orbax numbered.
    """
    part_of_more = at.name == "orbax" or (at.parent.name.isdecimal() and (at / "_METADATA").exists())
    return at.parent if part_of_more and at.parent != folder else at


def _is_main(folder: Path) -> bool:
    """Whether a folder is the revision that refs/main of its hub cache names."""
    if folder.parent.name != "snapshots":
        return False
    ref = folder.parent.parent / "refs" / "main"
    try:
        return file_size(ref) <= 100 and read_text(ref, 100).strip() == folder.name
    except (OSError, ValueError):
        return False


def give(names: list[str]) -> str:
    """The offer of one or several names."""
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return f"give {'one of ' if len(names) > 1 else ''}{shown}"


def describe_folder(folder: Path, looked_for: str) -> str:
    """Why a folder is not read, and what to give in its place."""
    names = names_in(folder)
    if below := folders_below(folder):
        return f"{folder}: no weights in this folder itself, but below it: {give(below)}"
    if parts := _in_parts(folder, names):
        return parts
    readable, reasons = _variants(folder, names)
    if readable:
        return f"{folder}: no weights under a usual name, but files that can be read: {give(readable)}"
    if reasons:
        return reasons[0]
    text = f"{folder}: no weights in this folder"
    if holds_weights(names_in(folder.parent)) and folder.name not in ("", ".."):
        return f"{text}, but in the one that it lies in: give {folder.parent}"
    if not _DESCRIPTIONS.isdisjoint(names):
        text += ", but a configuration or a tokenizer: fetch the weight file as well"
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"{text}; {looked_for}; found {shown or 'nothing'}"


def _in_parts(folder: Path, names: list[str]) -> str | None:
    """What kind of folder this is, or one in it, if of one that is known; None if of none."""
    inner = [folder / name for name in names[:_FOLDERS] if not (folder / name).is_symlink()]
    for each in (folder, *(path for path in inner if path.is_dir())):
        held = names if each == folder else names_in(each)
        for kind in FOLDER_KINDS:
            if kind.is_one(held):
                return f"{each}: expected a model, found {kind.found}: {kind.next_step}"
    return None


def _variants(folder: Path, names: list[str]) -> tuple[list[str], list[str]]:
    """Files of other names in a folder that can be read as weights, and why others that look like some cannot."""
    readable, reasons = [], []
    for name in [name for name in names if _VARIANT.fullmatch(name) and not _BESIDE.fullmatch(name)][:50]:
        try:
            start = look(folder / name)
        except ValueError:
            continue
        kind = tell(start)
        if kind and kind.reader:
            readable.append(name)
        elif kind:
            reasons.append(refusal(start, kind))
    return readable, reasons


def describe_absent(path: Path, looked_for: str) -> str:
    """Why a path that is not there is not read, and what was probably meant."""
    if not path.is_absolute() and not path.parent.exists():
        check_hub_name(str(path))
    missing, folder = path, path.parent
    while not folder.is_dir() and folder != folder.parent:
        if folder.exists():
            return f"{path}: there is no such file: {folder} is a file, not a folder"
        missing, folder = folder, folder.parent
    meant = _alike(missing.name, folder)
    text = f"{path}: there is no such file or folder"
    if missing != path:
        text += f": {folder} holds no {missing.name}"
    return f"{text}; there is something like it in {folder}: {give(meant)}" if meant else f"{text}; {looked_for}"


def _alike(name: str, folder: Path) -> list[str]:
    """Names in a folder that begin as ``name`` does, or are spelled almost so; checkpoints by their prefixes."""
    names = names_in(folder)
    offered = [
        name.removesuffix(".index") for name in names if not _DATA.fullmatch(name) and not name.endswith(".meta")
    ]
    begins = [each for each in offered if each.startswith(name)] if len(name) > 2 else []
    by_case = {each.lower(): each for each in offered}
    near = difflib.get_close_matches(name.lower(), by_case, n=3, cutoff=0.75) if len(name) < 100 else []
    return begins[:_SHOWN] or [by_case[each] for each in near]
