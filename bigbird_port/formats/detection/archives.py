"""What archives hold, as far as their tables tell: nothing is unpacked, and little is read."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

from bigbird_port.files.reading import open_regular

MAX_TABLE_BYTES = 4 << 20  # of a zip: twenty times that of the largest torch file with its optimizer
_MAX_MEMBERS = 500  # of a tar that are looked at
_BLOCK = 512
_WEIGHTS = re.compile(r"\.(safetensors|bin|msgpack|index|pt|pth|h5|pb|ckpt)$")


def zip_names(path: Path) -> list[str] | None:
    """Names of what a zip holds; None where its table, which stands at the end, is cut off or damaged."""
    try:
        if not 0 <= _table_bytes(path) <= MAX_TABLE_BYTES:
            return None
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            return archive.namelist()
    except Exception:  # zipfile raises nearly every type for a damaged file
        return None


def _table_bytes(path: Path) -> int:
    """Size of the table that a zip's last record tells; -1 where there is no such record."""
    with open_regular(path) as file:
        end = file.seek(0, 2)
        file.seek(max(0, end - (1 << 16) - 98))
        tail = file.read()
        at = tail.rfind(b"PK\5\6")
        if at < 0:
            return -1
        size = int.from_bytes(tail[at + 12 : at + 16], "little")
        if size != 0xFFFFFFFF:
            return size
        at = tail.rfind(b"PK\6\6", 0, at)  # the record of archives over 4 GiB
        return int.from_bytes(tail[at + 40 : at + 48], "little") if at >= 0 else -1


def zip_start(path: Path, name: str, count: int) -> bytes:
    """The first bytes of one member of a zip; empty where it is damaged."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive, archive.open(name) as member:
            return member.read(count)
    except Exception:  # zipfile raises nearly every type for a damaged file
        return b""


def tar_names(path: Path) -> list[str]:
    """Names of the first members of a tar, as far as its headers are whole."""
    names: list[str] = []
    with open_regular(path) as file:
        while len(names) < _MAX_MEMBERS:
            header = file.read(_BLOCK)
            if header[257:262] != b"ustar":
                break
            try:
                size = int(header[124:136].strip(b"\0 ") or b"0", 8)
            except ValueError:
                break
            if size < 0:
                break
            names.append(header[:100].rstrip(b"\0").decode("utf-8", "replace"))
            file.seek(-(-size // _BLOCK) * _BLOCK, 1)
    return names


def inflated(data: bytes, count: int) -> bytes:
    """The first bytes that the beginning of a gzip file unpacks to; empty where it is damaged."""
    try:
        return zlib.decompressobj(wbits=31).decompress(data, count)
    except zlib.error:
        return b""


def weights_among(names: list[str]) -> str:
    """What an archive holds, in words: its weight files if any."""
    found = [name for name in names if _WEIGHTS.search(name) and name.isprintable()]
    shown = ", ".join(name[:80] for name in found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    return f" that holds {shown}" if found else ""
