"""Mutants of a file: every place that a rule changes, as a change of its text.

What is said to people, what checks types, and what is refused is no part of the function: imports, annotations,
docstrings, messages and the raising of errors are left as they are.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from parity.mutants.rules import RULES
from parity.mutants.scope import Source

_ARRAY = re.compile(r"_[A-Z][A-Z0-9]*$")  # a name that tells its axes


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    file: path under the project. module: its name. rule: what was changed, by RULES' names. lines: the first and the
    last line of the statement, or of its head. start, end: of what is replaced, in bytes of the file. old, new: what
    stood there, and what stands there now.
    """

    file: str
    module: str
    rule: str
    lines: tuple[int, int]
    start: int
    end: int
    old: str
    new: str

    @property
    def name(self) -> str:
        """File, line and change, for people."""
        return f"{self.file}:{self.lines[0]}: {self.rule}: {' '.join(self.old.split())} -> {' '.join(self.new.split())}"

    def apply(self, source: bytes) -> bytes:
        """Return the file's bytes with the change; raises ValueError if the file is not the one it was made from."""
        if source[self.start : self.end].decode(errors="replace") != self.old:
            raise ValueError(f"{self.file} has changed since its mutants were made: start again")
        return source[: self.start] + self.new.encode() + source[self.end :]


def mutants_of(source: Source, text: str) -> list[Mutant]:
    """Return every mutant of a file, in the order of the text; no change twice, and none that is not Python."""
    data, offsets, tree = text.encode(), _offsets(text), ast.parse(text)
    modules, found = _imported(tree), dict[tuple[int, int, str], Mutant]()
    for statement in _statements(tree):
        for rule, node, new in _changes(statement, source.framework):
            assert node.end_lineno is not None
            assert node.end_col_offset is not None
            start = offsets[node.lineno - 1] + node.col_offset
            end = offsets[node.end_lineno - 1] + node.end_col_offset
            old, key = data[start:end].decode(), (start, end, new)
            if key not in found and new.strip("()") not in modules and _differs(old, new):
                found[key] = Mutant(source.file, source.module, rule, _lines(statement), start, end, old, new)
    return sorted(found.values(), key=lambda mutant: (mutant.start, mutant.end, mutant.new))


def sample(mutants: Sequence[Mutant], size: int | None, seed: int) -> list[Mutant]:
    """Return some mutants, drawn by a seed; all in their order if no size is given, or a larger one."""
    if size is None or size >= len(mutants):
        return list(mutants)
    return random.Random(seed).sample(list(mutants), size)


def _imported(tree: ast.Module) -> set[str]:
    """Names that a file imports: of modules, classes and functions, which are no values to put in a call's place."""
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {alias.asname or alias.name.partition(".")[0] for node in statements for alias in node.names}


def _differs(old: str, new: str) -> bool:
    """Whether two texts mean different things, and the new one is Python."""
    try:
        return new == "pass" or ast.dump(ast.parse(f"_[{old}]")) != ast.dump(ast.parse(f"_[{new}]"))
    except SyntaxError:
        return False


def _offsets(text: str) -> list[int]:
    """Where each line begins, in bytes."""
    found = [0]
    for line in text.encode().splitlines(keepends=True):
        found.append(found[-1] + len(line))
    return found


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Every statement that may be changed, outermost first."""
    for field in ("body", "orelse", "finalbody", "handlers"):
        for child in getattr(node, field, []) if not isinstance(node, ast.expr) else []:
            if isinstance(child, ast.ExceptHandler):
                yield from _statements(child)
            elif not _is_fixed(child):
                yield child
                yield from _statements(child)


def _is_fixed(statement: ast.stmt) -> bool:
    """Whether a statement is no part of the function."""
    if isinstance(statement, ast.Import | ast.ImportFrom | ast.Raise | ast.Assert | ast.Global | ast.Nonlocal):
        return True
    if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
        return True
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _lines(statement: ast.stmt) -> tuple[int, int]:
    """The lines of a statement, or of its head if it has a body."""
    body = getattr(statement, "body", None)
    last = statement.end_lineno or statement.lineno
    if isinstance(body, list) and body:
        last = max(statement.lineno, body[0].lineno - 1)
    return statement.lineno, last


def _changes(statement: ast.stmt, framework: str) -> Iterator[tuple[str, ast.expr | ast.stmt, str]]:
    """What may be changed in a statement, its body aside: the rule, what is replaced, and by what text."""
    yield from _whole(statement, framework)
    for node in _own(statement):
        for rule, (kinds, change) in RULES.items():
            if isinstance(node, kinds):
                for new in change(node):
                    yield rule, node, new if _is_bare(node) else f"({new})"


def _is_bare(node: ast.expr) -> bool:
    """Whether brackets may not stand around an expression: a slice, or several."""
    return isinstance(node, ast.Slice) or (
        isinstance(node, ast.Tuple) and any(isinstance(element, ast.Slice) for element in node.elts)
    )


def _whole(statement: ast.stmt, framework: str) -> Iterator[tuple[str, ast.expr | ast.stmt, str]]:
    """Changes of a whole statement: it is left out, a condition is negated, a loop shorter, a gradient detached."""
    if isinstance(statement, ast.AugAssign) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    ):
        yield "dropped statement", statement, "pass"
    if isinstance(statement, ast.Assign) and _is_rebinding(statement):
        yield "dropped statement", statement, "pass"
    if isinstance(statement, ast.Break | ast.Continue):
        yield "dropped statement", statement, "pass"
    if isinstance(statement, ast.If | ast.While) and not _only_raises(statement):
        yield "condition", statement.test, f"(not ({ast.unparse(statement.test)}))"
    if isinstance(statement, ast.For):
        yield "off by one", statement.iter, f"list({ast.unparse(statement.iter)})[1:]"
        yield "off by one", statement.iter, f"list({ast.unparse(statement.iter)})[:-1]"
    if value := _array_of(statement):
        text = ast.unparse(value)
        detached = f"({text}).detach()" if framework == "torch" else f"__import__('jax').lax.stop_gradient({text})"
        if framework in ("torch", "flax"):
            yield "detached gradient", value, detached


def _is_rebinding(statement: ast.stmt) -> bool:
    """Whether a statement changes a name that had a value before, so that it can be left out."""
    if not isinstance(statement, ast.Assign):
        return False
    target = statement.targets[0]
    used = {node.id for node in ast.walk(statement.value) if isinstance(node, ast.Name)}
    return isinstance(target, ast.Name) and target.id in used


def _only_raises(statement: ast.If | ast.While) -> bool:
    return all(isinstance(child, ast.Raise) for child in statement.body)


def _array_of(statement: ast.stmt) -> ast.expr | None:
    """The value of a statement that gives an array of real numbers a name, or returns one by an expression."""
    if isinstance(statement, ast.Assign) and isinstance(target := statement.targets[0], ast.Name):
        is_array = _ARRAY.search(target.id) or target.id in ("context", "x", "total")
        return statement.value if is_array and not isinstance(statement.value, ast.Constant | ast.Tuple) else None
    return None


def _own(statement: ast.stmt) -> Iterator[ast.expr]:
    """The nodes of a statement that may be changed, without those of the statements in its body."""
    fixed: list[ast.AST] = []
    if isinstance(statement, ast.AnnAssign):
        fixed.append(statement.annotation)
    todo: list[ast.AST] = [statement]
    while todo:
        node = todo.pop()
        for child in ast.iter_child_nodes(node):
            if child in fixed or isinstance(child, ast.stmt | ast.ExceptHandler | ast.JoinedStr | ast.match_case):
                continue
            if isinstance(child, ast.arg) or (isinstance(node, ast.FunctionDef) and child is node.returns):
                continue
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and child in (
                *node.decorator_list,
                *getattr(node, "bases", ()),
            ):
                continue
            if isinstance(child, ast.expr) and not isinstance(getattr(child, "ctx", None), ast.Store | ast.Del):
                yield child
            todo.append(child)
