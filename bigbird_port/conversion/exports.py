"""Programs for other runtimes as targets: what each is called, what it is made from, and the record beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from bigbird_port.files.json_object import read_json_object
from bigbird_port.files.outputs.out_folder import TARGET_FOLDERS, check_out
from bigbird_port.files.reading import is_there

if TYPE_CHECKING:
    from bigbird_port.conversion.plan import Plan

ExportName = Literal["onnx", "stablehlo", "saved-model"]
EXPORTS: tuple[ExportName, ...] = get_args(ExportName)
MADE_FROM: dict[str, Literal["torch", "flax"]] = {"onnx": "torch", "stablehlo": "flax", "saved-model": "flax"}
TITLES = {"onnx": "ONNX program", "stablehlo": "StableHLO program of jax.export", "saved-model": "SavedModel"}
RECORD = "export.json"


@dataclass(frozen=True)
class Export:
    """How a program is called, and what was checked before it appeared.

    format: one of EXPORTS. file: what its runtime opens, within the folder ("": the folder). dtype: of the weights and
    the computation. inputs, outputs: by name, dtype and shape; a name in a shape is an axis of any size. length: tokens
    that every text must have, padding included; None: any up to ``longest``. pattern_length: tokens of the attention
    pattern; None: full attention. details: what the format has to say, such as its opset. made_with: versions.
    verified: what the program was held against, on which shapes, and the largest errors.
    """

    format: str
    file: str
    head: str
    dtype: str
    inputs: Mapping[str, Mapping[str, Any]]
    outputs: Mapping[str, Mapping[str, Any]]
    length: int | None
    longest: int
    pattern_length: int | None
    details: Mapping[str, Any]
    made_with: Mapping[str, str]
    verified: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The record's values."""
        return asdict(self)

    def __str__(self) -> str:
        """What it is, in a line."""
        length = f"texts of up to {self.longest} tokens" if self.length is None else f"{self.length} tokens a text"
        details = ", ".join(f"{name} {value}" for name, value in self.details.items())
        takes, gives = ", ".join(self.inputs), ", ".join(self.outputs)
        kind = f"{TITLES[self.format]} of a {self.head} model, {self.dtype}, any batch, {length}"
        return f"{kind}; {details}; takes {takes}; returns {gives}"


class Exporter(Protocol):
    """What makes programs of converted weights: it knows frameworks, which a conversion does not load."""

    def check(self, plan: Plan) -> list[str]:
        """Return what to say of the programs that a plan asks for; raises ValueError for what cannot be made."""
        ...

    def write(self, name: ExportName, model: Path, folder: Path, plan: Plan) -> Export:
        """Fill ``folder`` with a program of the model that convert wrote into the folder ``model``, and verify it."""
        ...


def write_record(folder: Path, export: Export) -> None:
    """Write the record beside a program."""
    (folder / RECORD).write_text(json.dumps(export.to_json(), indent=1) + "\n", encoding="utf-8")


def read_record(folder: Path) -> Export:
    """Read the record beside a program; raises ValueError naming the file and what is wrong with it."""
    values = read_json_object(folder / RECORD)
    names = {field.name for field in fields(Export)}
    if set(values) != names or values["format"] not in EXPORTS:
        raise ValueError(f"{folder / RECORD}: expected the record that convert --to {'|'.join(EXPORTS)} wrote")
    return Export(**values)


def find_exports(path: Path) -> dict[str, Export]:
    """Return the records of the programs that the folder ``path`` is or holds, by the folder's name.

    Raises ValueError where something stands in it that convert did not write.
    """
    folders = [path, *(path / name for name in EXPORTS)]
    found = {folder.name: read_record(folder) for folder in folders if is_there(folder / RECORD)}
    if found:
        check_out(path)
    return found


def holds_exports_alone(path: Path, exports: Mapping[str, Export]) -> bool:
    """Whether there are programs in a folder and no weights to read beside them."""
    return bool(exports) and (path.name in exports or not any((path / name).is_dir() for name in TARGET_FOLDERS))
