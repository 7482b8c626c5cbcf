"""The opcodes of a pickle, of which there are only so many and whose values nest only so deep.

A few megabytes of lists in lists, or of numbers, would keep the reader of a pickle busy for minutes.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import Any

from bigbird_port.formats.limits import MAX_DEPTH, MAX_OPCODES, MAX_OPEN

_ADDERS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"}
_NESTING = {
    *("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "EMPTY_TUPLE", "LIST", "DICT", "TUPLE", "FROZENSET"),
    *("TUPLE1", "TUPLE2", "TUPLE3", "REDUCE", "BUILD", "NEWOBJ", "BINPERSID"),
}
_MARKED = {opcode.name for opcode in pickletools.opcodes if pickletools.markobject in opcode.stack_before}
_TAKEN = {opcode.name: len(opcode.stack_before) for opcode in pickletools.opcodes}
_GIVEN = {opcode.name: len(opcode.stack_after) for opcode in pickletools.opcodes}


def bounded_opcodes(file: Any) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
    """Yield each opcode with its argument; raises ValueError once there are too many, or they nest too deep."""
    nesting = _Nesting()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count >= MAX_OPCODES:
            raise ValueError(f"its pickle has more than {MAX_OPCODES} opcodes")
        nesting.follow(opcode.name)
        yield opcode, argument


class _Nesting:
    """How deep each value on the pickle machine's stack is nested; what is taken from its memo counts as flat."""

    def __init__(self) -> None:
        self.stack: list[int] = []  # of each value: how many values are in each other in it
        self.marks: list[int] = []

    def follow(self, name: str) -> None:
        """Take account of one opcode; raises ValueError where a value is nested too deep, or too many are open."""
        if name == "MARK":
            self.marks.append(len(self.stack))
        elif name in _ADDERS:
            taken = self._take(name)
            holder = self.stack.pop() if name in _MARKED and self.stack else taken.pop(0) if taken else 0
            self._put(max(holder, 1 + max(taken, default=0)))
        elif name in _NESTING:
            self._put(1 + max(self._take(name), default=0))
        elif (_TAKEN[name] or _GIVEN[name]) and name != "MEMOIZE":  # which leaves the stack as it is
            if _TAKEN[name]:
                self._take(name)
            self.stack += (0,) * _GIVEN[name]
        if len(self.stack) + len(self.marks) > MAX_OPEN:
            raise ValueError(f"its pickle has more than {MAX_OPEN} values that are not yet in another")

    def _take(self, name: str) -> list[int]:
        """Pop what an opcode takes: all down to the mark, or as many as it says."""
        at = len(self.stack) - _TAKEN[name]
        if name in _MARKED:
            at = self.marks.pop() if self.marks else 0
        taken, self.stack[max(at, 0) :] = self.stack[max(at, 0) :], []
        return taken

    def _put(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ValueError(f"its pickle is nested more than {MAX_DEPTH} deep")
        self.stack.append(depth)
