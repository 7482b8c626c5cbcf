"""Reader of the sorted string table in which a TensorFlow checkpoint keeps its index.

The format is LevelDB's (tensorflow/core/lib/io/table_format.txt): blocks of prefix-compressed keys, each with
a type byte and a masked crc32c behind it, an index block of block positions, and a 48-byte footer.
"""

from __future__ import annotations

from collections.abc import Iterator

import google_crc32c

_FOOTER_SIZE = 48
_MAGIC = 0xDB4775248B80FB57
_TRAILER_SIZE = 5  # type byte and crc32c


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


def masked_crc32c(crc: int) -> int:
    """The masked form in which TensorFlow stores a crc32c."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the (key, value) pairs of a table in order; raises ValueError saying what is damaged."""
    if len(data) < _FOOTER_SIZE:
        raise ValueError(f"it has {len(data)} bytes, fewer than its {_FOOTER_SIZE}-byte footer: it is truncated")
    footer = data[-_FOOTER_SIZE:]
    if int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise ValueError("its last 8 bytes are not the magic number of a TensorFlow index: truncated or not an index")
    _, at = _read_handle(footer, 0)  # the metaindex, which TensorFlow leaves empty
    index_handle, _ = _read_handle(footer, at)
    for _, handle in _read_block(data, index_handle):
        yield from _read_block(data, _read_handle(handle, 0)[0])


def _read_handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (offset, size), at


def _read_block(data: bytes, handle: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
    offset, size = handle
    end = offset + size
    if end + _TRAILER_SIZE > len(data) - _FOOTER_SIZE or size < 4:
        raise ValueError(f"a block at bytes {offset} to {end} does not fit in its {len(data)} bytes")
    kind = data[end]
    if kind != 0:
        raise ValueError(f"the block at byte {offset} is compressed (type {kind}), which TensorFlow does not write")
    stored = int.from_bytes(data[end + 1 : end + _TRAILER_SIZE], "little")
    if stored != masked_crc32c(google_crc32c.value(data[offset : end + 1])):
        raise ValueError(f"the block at byte {offset} does not match its crc32c: the file is damaged")
    block = data[offset:end]
    restarts = int.from_bytes(block[-4:], "little")
    entries_end = len(block) - 4 * (restarts + 1)
    key, at = b"", 0
    while at < entries_end:
        shared, at = read_varint(block, at)
        fresh, at = read_varint(block, at)
        length, at = read_varint(block, at)
        if shared > len(key) or at + fresh + length > entries_end:
            raise ValueError(f"an entry of the block at byte {offset} runs past its end")
        key = key[:shared] + block[at : at + fresh]
        yield key, block[at + fresh : at + fresh + length]
        at += fresh + length
