"""The beginning of a file: what its kind is told from, whatever its name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bigbird_port.files.reading import open_regular
from bigbird_port.formats.detection.archives import zip_names
from bigbird_port.formats.links import file_size

START_BYTES = 4096


@dataclass(frozen=True)
class Start:
    """The first bytes of a file of ``size`` bytes; everything that is told from them is told once."""

    path: Path
    size: int
    data: bytes

    @cached_property
    def is_zip(self) -> bool:
        """Whether it begins as a zip does."""
        return self.data.startswith((b"PK\3\4", b"PK\5\6"))

    @cached_property
    def members(self) -> list[str] | None:
        """Names of what a zip holds; None where it is none, or its table is cut off or damaged."""
        return zip_names(self.path) if self.is_zip else None

    @cached_property
    def text(self) -> str | None:
        """The bytes as text, or None where they are none."""
        try:
            text = self.data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            if error.start < len(self.data) - 4:  # else a character is cut at the end of what was read
                return None
            text = self.data[: error.start].decode("utf-8-sig")
        return text if text and all(letter.isprintable() or letter in "\t\r\n" for letter in text) else None


def look(path: Path) -> Start:
    """Read the beginning of a regular file; raises ValueError where it is none or cannot be read."""
    size = file_size(path)
    try:
        with open_regular(path) as file:
            return Start(path, size, file.read(START_BYTES))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
