"""Writer of the sorted string table in which a TensorFlow checkpoint keeps its index.

The format is LevelDB's as TensorFlow writes it, uncompressed (table_builder.cc, block_builder.cc and format.cc in
tensorflow/core/lib/io, now xla/tsl/lib/io); ``bigbird_port.formats.tensorflow.table_reader`` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable

import google_crc32c

from bigbird_port.formats.runs import masked_crc32c

BLOCK_SIZE = 256 << 10
_RESTART_INTERVAL = 16
_MAGIC = 0xDB4775248B80FB57
_HANDLES_SIZE = 40  # of the footer's 48 bytes
_NO_COMPRESSION = b"\0"


def write_varint(value: int) -> bytes:
    """Encode a number of at least 0 in groups of 7 bits, lowest first."""
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def write_table(pairs: Iterable[tuple[bytes, bytes]], block_size: int = BLOCK_SIZE) -> bytes:
    """Return the table of (key, value) pairs, which come in rising order of keys.

    block_size: bytes after which a block of pairs is closed. Raises ValueError where keys do not rise.
    """
    table, block, index = bytearray(), _Block(_RESTART_INTERVAL), _Block(1)
    last, closed = None, b""  # the last key; the handle of a closed block that the index lacks
    for key, value in pairs:
        if last is not None and key <= last:
            raise ValueError(f"the key {key!r} does not come after {last!r}")
        if closed and last is not None:
            index.add(_separator(last, key), closed)
            closed = b""
        block.add(key, value)
        last = key
        if block.size >= block_size:
            closed = _append(table, block)
            block = _Block(_RESTART_INTERVAL)
    if block.entries:
        closed = _append(table, block)
    metaindex = _append(table, _Block(_RESTART_INTERVAL))  # it would name filters, of which there are none
    if closed and last is not None:
        index.add(_successor(last), closed)
    handles = metaindex + _append(table, index)
    return bytes(table + handles.ljust(_HANDLES_SIZE, b"\0") + _MAGIC.to_bytes(8, "little"))


class _Block:
    """Pairs whose keys are stored as what differs from the key before; at a restart point they are whole."""

    def __init__(self, restart_interval: int) -> None:
        self.entries = bytearray()
        self._interval = restart_interval
        self._restarts = [0]
        self._since_restart = 0
        self._last = b""

    @property
    def size(self) -> int:
        return len(self.entries) + 4 * (len(self._restarts) + 1)

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self._since_restart < self._interval:
            shared = _shared(self._last, key)
        else:
            self._restarts.append(len(self.entries))
            self._since_restart = 0
        for number in (shared, len(key) - shared, len(value)):
            self.entries += write_varint(number)
        self.entries += key[shared:] + value
        self._last = key
        self._since_restart += 1

    def finish(self) -> bytes:
        return bytes(self.entries) + b"".join(
            number.to_bytes(4, "little") for number in (*self._restarts, len(self._restarts))
        )


def _append(table: bytearray, block: _Block) -> bytes:
    """Append a block with its trailer and return its handle."""
    data = block.finish()
    handle = write_varint(len(table)) + write_varint(len(data))
    crc = masked_crc32c(google_crc32c.value(data + _NO_COMPRESSION))
    table += data + _NO_COMPRESSION + crc.to_bytes(4, "little")
    return handle


def _shared(one: bytes, other: bytes) -> int:
    """Length of the common prefix."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _separator(last: bytes, key: bytes) -> bytes:
    """A short key from ``last`` up to, but not, ``key``."""
    shared = _shared(last, key)
    if shared < min(len(last), len(key)) and last[shared] + 1 < key[shared]:
        return last[:shared] + bytes([last[shared] + 1])
    return last


def _successor(last: bytes) -> bytes:
    """A short key not before ``last``."""
    for i, byte in enumerate(last):
        if byte != 0xFF:
            return last[:i] + bytes([byte + 1])
    return last
