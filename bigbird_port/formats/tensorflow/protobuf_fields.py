"""Reader of protocol-buffer messages, field by field: enough for the few that checkpoints hold.

It never recurses: who wants a nested message calls it again, so the caller's code bounds the depth.
"""

from __future__ import annotations

from collections.abc import Iterator

Fields = dict[int, int | bytes]


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the varint at ``at`` and the position behind it; raises ValueError where the data ends too soon."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number in it runs past the end of the data")


def read_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) of a message; raises ValueError where it is damaged."""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = read_varint(data, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, at = read_varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field in it has the unknown kind {kind}")
        if at + size > len(data):
            raise ValueError("a field in it runs past its end")
        raw, at = data[at : at + size], at + size
        yield tag >> 3, raw if kind == 2 else int.from_bytes(raw, "little")


def last_fields(data: bytes) -> Fields:
    """Return the fields of a message by number; of a repeated one the last, as protocol buffers have it."""
    return dict(read_fields(data))


def repeated(data: bytes, number: int) -> Iterator[bytes]:
    """Yield every message or string under one field number."""
    for found, value in read_fields(data):
        if found == number:
            yield as_bytes(value)


def number_of(fields: Fields, number: int) -> int:
    """Return a field as a number from 0 to 2**63 - 1, 0 where it is absent; raises ValueError otherwise."""
    value = fields.get(number, 0)
    if not isinstance(value, int) or value >= 1 << 63:
        raise ValueError(f"field {number} in it is not a number in range")
    return value


def bytes_of(fields: Fields, number: int) -> bytes:
    """Return a field as bytes, empty where it is absent; raises ValueError where it is a number."""
    return as_bytes(fields.get(number, b""))


def as_bytes(value: int | bytes) -> bytes:
    """Return ``value``; raises ValueError where it is a number."""
    if isinstance(value, int):
        raise ValueError("a field in it is not a message")
    return value
