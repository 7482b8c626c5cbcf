"""Reader of the sorted string table in which a TensorFlow checkpoint keeps its index.

The format is LevelDB's (tensorflow/core/lib/io/table_format.txt): blocks of prefix-compressed keys, each with
a type byte and a masked crc32c behind it, an index block of block positions, and a 48-byte footer.
"""

from __future__ import annotations

from collections.abc import Iterator

import google_crc32c

from bigbird_port.formats.limits import MAX_KEY_EXPANSION
from bigbird_port.formats.runs import masked_crc32c
from bigbird_port.formats.tensorflow.protobuf_fields import read_varint

_FOOTER_SIZE = 48
_MAGIC = 0xDB4775248B80FB57
_TRAILER_SIZE = 5  # type byte and crc32c


def read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the (key, value) pairs of a table in order; raises ValueError saying what is damaged."""
    if len(data) < _FOOTER_SIZE:
        raise ValueError(
            f"it has {len(data)} bytes, fewer than its {_FOOTER_SIZE}-byte footer: truncated: fetch it again"
        )
    footer = data[-_FOOTER_SIZE:]
    if int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise ValueError(
            f"the last 8 of its {len(data)} bytes are not the magic number of a TensorFlow index: it is truncated, or "
            "no index: fetch it again"
        )
    _, at = _read_handle(footer, 0)  # the metaindex, which TensorFlow leaves empty
    index_handle, _ = _read_handle(footer, at)
    last, key_bytes, blocks_end = None, 0, 0
    for _, raw in _read_block(data, index_handle):
        handle, _ = _read_handle(raw, 0)
        if handle[0] < blocks_end:
            raise ValueError(f"the block at byte {handle[0]} is out of order")
        blocks_end = sum(handle)
        for key, value in _read_block(data, handle):
            key_bytes += len(key)
            if key_bytes > MAX_KEY_EXPANSION * len(data):
                raise ValueError(f"its keys are more than {MAX_KEY_EXPANSION} times as long as the file")
            if last is not None and key <= last:
                raise ValueError(f"the key {key[:80]!r} is {'there twice' if key == last else 'out of order'}")
            last = key
            yield key, value


def _read_handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (offset, size), at


def _read_block(data: bytes, handle: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
    offset, size = handle
    block = _checked_block(data, offset, size)
    entries_end = len(block) - 4 * (int.from_bytes(block[-4:], "little") + 1)  # behind the entries: restart points
    if entries_end < 0:
        raise ValueError(f"the block at byte {offset} has more restart points than bytes")
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


def _checked_block(data: bytes, offset: int, size: int) -> bytes:
    end = offset + size
    if end + _TRAILER_SIZE > len(data) - _FOOTER_SIZE or size < 4:
        raise ValueError(f"a block at bytes {offset} to {end} does not fit in its {len(data)} bytes")
    kind = data[end]
    if kind != 0:
        raise ValueError(f"the block at byte {offset} is compressed (type {kind}), which TensorFlow does not write")
    stored = int.from_bytes(data[end + 1 : end + _TRAILER_SIZE], "little")
    if stored != masked_crc32c(google_crc32c.value(data[offset : end + 1])):
        raise ValueError(f"the block at byte {offset} does not match its crc32c: the file is damaged")
    return data[offset:end]
