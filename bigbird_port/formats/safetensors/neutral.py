"""Plans of the neutral form: canonical names and layouts in one safetensors file (docs/schema.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from bigbird_port.families.configuration import Configuration, described
from bigbird_port.families.registry import find_head
from bigbird_port.formats.file_plan import FilePlan, Planned
from bigbird_port.formats.safetensors.writer import SafetensorsFormat
from bigbird_port.schema.table import weights_of

FILE_NAME = "model.neutral.safetensors"
FORMAT = "bigbird-port neutral"
SCHEMA_VERSION = "1"


@dataclass(frozen=True)
class NeutralFormat:
    """One safetensors file with a head's canonical weights; its metadata carry the head and the configuration.

    Source: docs/schema.md; the container is that of SafetensorsFormat. Raises ValueError for an unknown head.
    """

    config: Configuration
    head: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", find_head(self.head).name)

    @property
    def metadata(self) -> dict[str, str]:
        """What the file's header says of itself."""
        return {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "head": self.head,
            "config": json.dumps(described(self.config, self.head)),
        }

    def plan(self, tensors: Mapping[str, Planned]) -> list[FilePlan]:
        """Return the one file; raises ValueError naming a tensor that the head lacks, or whose shape is another."""
        rows = {row.name: row for row in weights_of(self.config, self.head, "torch")}
        for name, tensor in tensors.items():
            if name not in rows:
                raise ValueError(f"{name} is no canonical weight of a {self.head} model: see bigbird-port schema")
            if tensor.shape != (expected := rows[name].shape(self.config)):
                raise ValueError(f"{name} is {list(tensor.shape)}, the configuration makes it {list(expected)}")
        absent = [name for name in rows if name not in tensors and name not in self.config.family.optional]
        if absent:
            raise ValueError(f"no weights for {', '.join(absent)}, which the {self.head} head needs")
        return SafetensorsFormat(self.metadata, FILE_NAME).plan(tensors)

    def finish(self, tensors: Mapping[str, Planned], crc32c: Mapping[str, int]) -> list[FilePlan]:
        """Return nothing: no byte of the format depends on the values of all tensors."""
        return []
