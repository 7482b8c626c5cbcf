"""Reader of JSON objects that bounds size and depth and refuses what two readers may take differently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bigbird_port.files.reading import read_whole, why_unread

MAX_JSON_BYTES = 100_000_000  # the limit of the safetensors library for its header, the largest JSON there is here
MAX_JSON_VALUES = 200_000  # a value of two letters takes a hundred bytes of memory; a tensor's header has eight values


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file; raises ValueError naming the file and what is wrong with it."""
    try:
        data = read_whole(path, MAX_JSON_BYTES)
    except OSError as error:
        raise ValueError(f"{path}: expected a JSON configuration, but it cannot be read: {why_unread(error)}") from None
    if not data.strip():
        raise ValueError(
            f"{path}: expected a JSON configuration, found nothing in its {len(data)} bytes: fetch it again"
        )
    try:
        return as_json_object(data, str(path))
    except ValueError:
        refuse_stand_in(path, data)
        raise


def refuse_stand_in(path: Path, data: bytes, expected: str = "a JSON configuration") -> None:
    """Raise ValueError, saying what it is, where a pointer or a server's answer stands in place of a file."""
    from bigbird_port.formats.detection.first_bytes import START_BYTES, Start
    from bigbird_port.formats.detection.kinds import refusal, tell

    start = Start(path, len(data), data[:START_BYTES])
    kind = tell(start)
    if kind and kind.stand_in:
        raise ValueError(refusal(start, kind, expected)) from None


def as_json_object(data: bytes, origin: str) -> dict[str, Any]:
    """Return the object of a JSON text; raises ValueError naming ``origin`` and what is wrong with it."""
    try:
        values = parse_json(data)
    except ValueError as error:
        raise ValueError(f"{origin}: expected a JSON configuration, but it cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{origin}: expected a JSON object, found {type(values).__name__}")
    return values


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON text in UTF-8; raises ValueError where it is none, or a key is there twice."""
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        raise ValueError(f"it has more than {MAX_JSON_VALUES} values")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_without_doubles)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        if error.pos >= len(error.doc.rstrip()) or "Unterminated string" in error.msg:
            raise ValueError(f"it ends too soon, after {len(data)} bytes: truncated: fetch it again") from None
        raise


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        doubled = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {doubled[:80]!r} is there twice")
    return values
