"""Reader of the variables of a SavedModel, or of any TensorFlow 2 checkpoint that keeps an object graph.

The variables lie in a TensorBundle under keys that follow the program's objects; the names that people know stand
in the string tensor _CHECKPOINTABLE_OBJECT_GRAPH. The computation (saved_model.pb) is neither run nor read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numpy as np

from bigbird_port.formats.limits import MAX_INDEX_BYTES
from bigbird_port.formats.runs import Run, RunStore, masked_crc32c, read_bytes
from bigbird_port.formats.tensorflow.bundle_reader import TensorBundle
from bigbird_port.formats.tensorflow.object_graph import parse_object_graph, readable_names
from bigbird_port.formats.tensorflow.protobuf_fields import read_varint

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
KEY_MARK = "/.ATTRIBUTES/"  # in the keys of checkpoints that were saved by objects, not by names


def open_saved_model(folder: Path) -> SavedModel | TensorBundle:
    """Open the variables of a SavedModel folder; one of an Estimator keeps them by name, without an object graph.

    Raises ValueError as SavedModel and TensorBundle do.
    """
    bundle = TensorBundle(folder / "variables" / "variables")
    return SavedModel(bundle) if saved_by_objects(bundle) else bundle


def saved_by_objects(bundle: TensorBundle) -> bool:
    """Whether a checkpoint's keys follow objects, so that its object graph holds the names."""
    return GRAPH in bundle.tensors and any(KEY_MARK in name for name in bundle.tensors)


class SavedModel(RunStore):
    """A Store of the variables of a checkpoint with an object graph, under their full names.

    bundle: of a SavedModel, the one at FOLDER/variables/variables. Raises ValueError naming the file and what is
    wrong with it.
    """

    def __init__(self, bundle: TensorBundle) -> None:
        self.bundle = bundle
        data = read_string(bundle, GRAPH)
        contents: dict[str, object] = {
            key: (entry.type_number, entry.shape, entry.crc32c if not entry.slices else key)
            for key, entry in bundle.entries.items()
        }
        try:
            names = readable_names(parse_object_graph(data), bundle.tensors, contents)
        except ValueError as error:
            raise ValueError(f"{bundle.index_path}: damaged object graph: {error}") from None
        self.keys = {names.get(key, key): key for key in bundle.tensors}
        if len(self.keys) < len(bundle.tensors):
            raise ValueError(f"{bundle.index_path}: damaged object graph: two variables have one name")
        super().__init__(
            bundle.files,
            {name: bundle.tensors[key] for name, key in self.keys.items()},
            {name: bundle.runs[key] for name, key in self.keys.items()},
        )

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Yield the values of one variable as Store.pieces does."""
        return self.bundle.pieces(self.keys[name])


def read_string(bundle: TensorBundle, name: str) -> bytes:
    """Return a scalar string of a checkpoint: its length as varint, that length's crc32c, its bytes.

    WriteStringTensor in tensorflow/core/util/tensor_bundle/tensor_bundle.cc. Raises ValueError where it is damaged.
    """
    entry = bundle.entries.get(name)
    if entry is None:
        raise ValueError(f"{bundle.index_path}: it has no {name}: not saved by objects, so not a SavedModel")
    if entry.type_number != 7 or entry.slices or math.prod(entry.shape) != 1 or entry.size > MAX_INDEX_BYTES:
        raise ValueError(f"{bundle.index_path}: {name} is {entry.stored.type_name}, {entry.shape}: expected one string")
    run = bundle.runs[name][0]
    raw = b"".join(read_bytes(Run(run.path, run.offset, run.size), name))
    text = _checked_string(raw, run.crc32c)
    if text is None:
        raise ValueError(f"{run.path}: {name} does not match its length or crc32c: the file is damaged; fetch it again")
    return text


def _checked_string(raw: bytes, expected: int | None) -> bytes | None:
    """The string in ``raw``, or None where it does not fit its length, that length's crc32c or the whole's."""
    try:
        length, at = read_varint(raw, 0)
        crc = google_crc32c.value(length.to_bytes(8 if length >> 32 else 4, "little"))
    except (ValueError, OverflowError):
        return None
    lengths_crc, text = raw[at : at + 4], raw[at + 4 :]
    if len(text) != length or int.from_bytes(lengths_crc, "little") != masked_crc32c(crc):
        return None
    return text if masked_crc32c(google_crc32c.extend(crc, lengths_crc + text)) == expected else None
