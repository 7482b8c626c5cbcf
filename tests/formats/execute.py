"""Carry out plans in memory, checking that they cover each file exactly once."""

from __future__ import annotations

import google_crc32c
import numpy as np

from bigbird_port.formats.file_plan import FilePlan, Planned


def planned(arrays):
    return {name: Planned(array.dtype, array.shape) for name, array in arrays.items()}


def execute(plan: FilePlan, arrays) -> bytes:
    """The file's bytes; asserts that literals and slots tile it, and that each tensor in it is there in full."""
    parts = [(offset, len(data), data) for offset, data in plan.literals]
    for name, segments in plan.slots.items():
        values = np.ascontiguousarray(arrays[name]).tobytes()
        assert sum(segment.size for segment in segments) == len(values), name
        at = 0
        for segment in segments:
            parts.append((segment.offset, segment.size, values[at : at + segment.size]))
            at += segment.size
    data = bytearray()
    for offset, size, part in sorted(parts, key=lambda part: part[:2]):
        assert (offset, size) == (len(data), len(part)), plan.name
        data += part
    assert len(data) == plan.size, plan.name
    return bytes(data)


def files_of(form, arrays) -> dict[str, bytes]:
    """Every file of a format for these arrays, by name; each tensor is in exactly one of them."""
    tensors = planned(arrays)
    plans = form.plan(tensors)
    assert sorted(name for plan in plans for name in plan.slots) == sorted(arrays)
    crc32c = {name: google_crc32c.value(array.tobytes()) for name, array in arrays.items()}
    later = form.finish(tensors, crc32c)
    assert not [name for plan in later for name in plan.slots]
    found = {plan.name: execute(plan, arrays) for plan in (*plans, *later)}
    assert len(found) == len(plans) + len(later)
    return found


def write_all(folder, form, arrays):
    for name, data in files_of(form, arrays).items():
        (folder / name).write_bytes(data)


def numbered(dtype, *shape, start=0):
    """Values that count on, so that any two positions differ (modulo the type's range)."""
    count = int(np.prod(shape, dtype=int))
    return (np.arange(start, start + count) % 120).astype(dtype).reshape(shape)
