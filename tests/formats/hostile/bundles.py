"""TensorFlow index files made by hand, so that each part of one can be made wrong."""

import google_crc32c

from bigbird_port.formats.runs import masked_crc32c

MAGIC = 0xDB4775248B80FB57


def varint(value):
    """A number of a protocol buffer; negative ones as TensorFlow writes them, in 64 bits."""
    value &= (1 << 64) - 1
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def field(number, value):
    """One field: a number as varint, bytes as message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def header(shards=1, endianness=0):
    return field(1, shards) + (field(2, endianness) if endianness else b"")


def shape(sizes):
    return b"".join(field(2, field(1, size)) for size in sizes)


def cut(*extents):
    """A TensorSliceProto; an extent is (start, length), or () for the whole axis."""
    return b"".join(field(1, b"".join(field(i + 1, part) for i, part in enumerate(extent))) for extent in extents)


def entry(sizes=(2,), size=None, offset=0, dtype=1, shard=0, crc32c=0, slices=()):
    """A BundleEntryProto; float32 unless told."""
    count = 4
    for each in sizes:
        count *= each
    parts = field(1, dtype), field(2, shape(sizes)), field(3, shard), field(4, offset)
    checksum = varint(6 << 3 | 5) + crc32c.to_bytes(4, "little")
    return (
        b"".join(parts) + field(5, count if size is None else size) + checksum + b"".join(field(7, s) for s in slices)
    )


def block(pairs, kind=0, restarts=1, share=False, crc32c=None):
    """A table block with its trailer. share: give each key as what differs from the last."""
    parts, last = [], b""
    for key, value in pairs:
        shared = 0
        while share and shared < min(len(last), len(key)) and last[shared] == key[shared]:
            shared += 1
        parts.append(varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value)
        last = key
    return finished(b"".join(parts), kind, restarts, crc32c)


def finished(data, kind=0, restarts=1, crc32c=None):
    """A block of these entries, with restart points and trailer."""
    data += bytes(4) + restarts.to_bytes(4, "little") + bytes([kind])
    crc = masked_crc32c(google_crc32c.value(data)) if crc32c is None else crc32c
    return data + crc.to_bytes(4, "little")


def table(blocks, order=None, magic=MAGIC):
    """An index file of finished blocks; order: of the blocks in the index block."""
    data, handles = b"", []
    for each in blocks:
        handles.append(varint(len(data)) + varint(len(each) - 5))
        data += each
    index = block([(bytes([i]), handles[each]) for i, each in enumerate(order or range(len(blocks)))])
    footer = varint(0) + varint(0) + varint(len(data)) + varint(len(index) - 5)
    return data + index + footer.ljust(40, b"\0") + magic.to_bytes(8, "little")


def index(pairs, head=None, **options):
    """An index file of one block: a header and (key, entry) pairs as they come."""
    return table([block([(b"", head if head is not None else header()), *pairs], **options)])
