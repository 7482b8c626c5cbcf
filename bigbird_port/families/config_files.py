"""What transformers' configurations offer beside their fields: files, JSON text, and everyday names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from bigbird_port.files.json_object import read_json_object
from bigbird_port.files.reading import is_there

CONFIG_FILE = "config.json"


class ConfigFiles:
    """The part of a configuration that reads and writes files."""

    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    model_type: ClassVar[str]

    @property
    def tie_word_embeddings(self) -> bool:
        """True: the decoder of language modelling is the table of words."""
        return True

    @property
    def use_return_dict(self) -> bool:
        """Whether a call returns a mapping where nothing else is asked for."""
        return self.return_dict  # type: ignore[attr-defined]  # a field

    @classmethod
    def from_pretrained(cls, folder: str | Path, **changes: Any) -> Self:
        """Read config.json of a folder (or that file, or the name of a model of the hub), and change fields.

        Names that are no field go into ``extra``. Raises ValueError naming file or field.
        """
        path = Path(folder)
        if not path.exists():
            from bigbird_port.models.place import fetched_config

            path = fetched_config(str(folder), changes)
        if path.is_dir() and not is_there(path / CONFIG_FILE) and is_there(path / "torch" / CONFIG_FILE):
            path = path / "torch"
        return cls.from_json_file(path / CONFIG_FILE if path.is_dir() else path, **changes)

    @classmethod
    def from_json_file(cls, path: str | Path, **changes: Any) -> Self:
        """Read one file; raises ValueError naming it."""
        values = read_json_object(Path(path))
        try:
            config: Any = cls.from_dict(values)  # type: ignore[attr-defined]
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        fields = {name: value for name, value in changes.items() if name in config.__dataclass_fields__}
        config = config.replace(**fields)
        config.update({name: value for name, value in changes.items() if name not in fields})
        return config

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json into a folder, which is made where it is missing."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.to_json_file(Path(folder) / CONFIG_FILE)

    def to_json_file(self, path: str | Path, use_diff: bool = True) -> None:
        """Write the configuration; use_diff: leave out what has its default."""
        Path(path).write_text(self.to_json_string(use_diff) + "\n", encoding="utf-8")

    def to_json_string(self, use_diff: bool = True) -> str:
        """Return the configuration as JSON; use_diff: leave out what has its default."""
        return json.dumps(self.to_diff_dict() if use_diff else self._named(self.to_dict()), indent=2)  # type: ignore[attr-defined]

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the fields that do not have their defaults, and what is extra."""
        defaults = type(self)().to_dict()  # type: ignore[attr-defined]
        own: dict[str, Any] = self.to_dict()  # type: ignore[attr-defined]
        return self._named({name: value for name, value in own.items() if defaults.get(name, ...) != value})

    def update(self, changes: Mapping[str, Any]) -> None:
        """Assign several fields, as ``config.use_cache = False`` assigns one."""
        for name, value in changes.items():
            setattr(self, name, value)

    def _named(self, values: dict[str, Any]) -> dict[str, Any]:
        """With the kind of model, and with labels as JSON has them."""
        if "id2label" in values:
            values["id2label"] = {str(key): value for key, value in values["id2label"].items()}
        return {"model_type": self.model_type, **values}
