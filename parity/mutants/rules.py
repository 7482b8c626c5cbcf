"""Rules of the syntax tree: each yields what an expression is replaced by, as source text.

Engines for whole projects have the rules of plain Python: operators, numbers, comparisons. Array code errs in other
ways too: a slice off by one, another axis, a call left out, arguments exchanged, a mask negated, another dtype.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

Rule = Callable[[Any], Iterator[str]]
_ARITHMETIC = "Add Sub, Sub Add, Mult Div, Div Mult, FloorDiv Mult, Mod FloorDiv, Pow Mult"
_BITS = "BitAnd BitOr, BitOr BitAnd, BitXor BitAnd, LShift RShift, RShift LShift"
_OPERATORS = dict(pair.split() for pair in f"{_ARITHMETIC}, {_BITS}".split(", "))
_ORDERINGS = "Lt LtE Gt, LtE Lt GtE, Gt GtE Lt, GtE Gt LtE"
_EQUALITIES = "Eq NotEq, NotEq Eq, In NotIn, NotIn In, Is IsNot, IsNot Is"
_COMPARISONS = {one: others for one, *others in map(str.split, f"{_ORDERINGS}, {_EQUALITIES}".split(", "))}
_PAIRS = (
    *(("min", "max"), ("minimum", "maximum"), ("sum", "mean"), ("argmin", "argmax"), ("any", "all")),
    *(("zeros", "ones"), ("zeros_like", "ones_like"), ("floor", "ceil"), ("tril", "triu"), ("log", "exp")),
    *(("softmax", "log_softmax"), ("cumsum", "cumprod"), ("logsumexp", "max"), ("unsqueeze", "squeeze")),
)
_NAMES = {one: other for pair in _PAIRS for one, other in (pair[::-1], pair)}
_DTYPES = {"float32": "bfloat16", "float64": "float32", "int64": "int32", "int32": "int64", "bool": "int32"}
_DTYPES |= {"float": "half", "long": "int"}


def operators(node: ast.BinOp) -> Iterator[str]:
    """Another operator: + for -, * for /."""
    if other := _OPERATORS.get(type(node.op).__name__):
        yield ast.unparse(ast.BinOp(node.left, getattr(ast, other)(), node.right))
    if isinstance(node.op, ast.MatMult | ast.Sub | ast.Div):
        yield ast.unparse(ast.BinOp(node.right, node.op, node.left))


def terms(node: ast.BinOp | ast.BoolOp | ast.UnaryOp) -> Iterator[str]:
    """A term, factor or sign is left out."""
    if isinstance(node, ast.UnaryOp):
        yield ast.unparse(node.operand)
    elif isinstance(node, ast.BoolOp):
        for i in range(len(node.values)):
            kept = node.values[:i] + node.values[i + 1 :]
            yield ast.unparse(kept[0] if len(kept) == 1 else ast.BoolOp(node.op, kept))
    else:
        yield ast.unparse(node.left)
        yield ast.unparse(node.right)


def conditions(node: ast.BoolOp | ast.IfExp) -> Iterator[str]:
    """The other connective, or always the same side of a choice."""
    if isinstance(node, ast.BoolOp):
        yield ast.unparse(ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values))
    else:
        yield ast.unparse(node.body)
        yield ast.unparse(node.orelse)


def constants(node: ast.Constant) -> Iterator[str]:
    """A number is one more or less, a factor 1 % or twice as large, a truth its opposite."""
    value = node.value
    if isinstance(value, bool):
        yield repr(not value)
    elif isinstance(value, int):
        yield from (repr(value + 1), repr(value - 1))
    elif isinstance(value, float):
        yield from (repr(value * 1.01), repr(value * 2)) if value else ("0.5",)


def comparisons(node: ast.Compare) -> Iterator[str]:
    """The bound itself comes in or falls out, or the comparison is turned round."""
    for other in _COMPARISONS.get(type(node.ops[0]).__name__, ()):
        yield ast.unparse(ast.Compare(node.left, [getattr(ast, other)(), *node.ops[1:]], node.comparators))


def slices(node: ast.Slice) -> Iterator[str]:
    """A slice begins or ends one place off, or runs to the end."""
    lower, upper, step = ("" if part is None else ast.unparse(part) for part in (node.lower, node.upper, node.step))

    def text(lower: str, upper: str) -> str:
        return f"{lower}:{upper}" + (f":{step}" if step else "")

    if lower:
        yield from (text(f"({lower}) + 1", upper), text(f"({lower}) - 1", upper), text("", upper))
    if upper:
        yield from (text(lower, f"({upper}) + 1"), text(lower, f"({upper}) - 1"), text(lower, ""))
    if lower and not upper:
        yield text("", lower)
    if upper and not lower:
        yield text(upper, "")


def axes(node: ast.Subscript) -> Iterator[str]:
    """Another axis or place: neighbouring indices are exchanged, or a single one is one less."""
    if isinstance(node.slice, ast.Tuple):
        for changed in _exchanged(node.slice.elts):
            yield ast.unparse(ast.Subscript(node.value, ast.Tuple(changed, ast.Load()), ast.Load()))
    elif not isinstance(node.slice, ast.Slice | ast.Constant):
        yield f"{ast.unparse(node.value)}[({ast.unparse(node.slice)}) - 1]"


def off_by_one(node: ast.Call) -> Iterator[str]:
    """A bound of a range, or of what fills or clips an array, is one more or less."""
    if _called(node) in ("range", "arange", "clip", "clamp"):
        for i, argument in enumerate(node.args):
            if not isinstance(argument, ast.Constant | ast.Starred):
                for sign in "+-":
                    changed = ast.parse(f"({ast.unparse(argument)}) {sign} 1", mode="eval").body
                    yield _call(node, [*node.args[:i], changed, *node.args[i + 1 :]])


def dropped_calls(node: ast.Call) -> Iterator[str]:
    """A call is left out: what it was given, or what it was a method of, stands in its place."""
    if isinstance(node.func, ast.Attribute):
        yield ast.unparse(node.func.value)
    if node.args and not isinstance(node.args[0], ast.Starred):
        yield ast.unparse(node.args[0])


def arguments(node: ast.Call) -> Iterator[str]:
    """Neighbouring arguments are exchanged, or one that has a name is left out."""
    if not any(isinstance(argument, ast.Starred) for argument in node.args):
        for changed in _exchanged(node.args):
            yield _call(node, changed)
    for i, keyword in enumerate(node.keywords):
        if keyword.arg:
            yield _call(node, node.args, node.keywords[:i] + node.keywords[i + 1 :])


def masks(node: ast.Call) -> Iterator[str]:
    """A mask that is passed on is negated."""
    for i, argument in enumerate(node.args):
        name = argument.id if isinstance(argument, ast.Name) else getattr(argument, "attr", "")
        if "mask" in name or "allowed" in name or "real" in name:
            changed = ast.parse(f"({ast.unparse(argument)} == 0)", mode="eval").body
            yield _call(node, [*node.args[:i], changed, *node.args[i + 1 :]])


def names(node: ast.Attribute | ast.Name) -> Iterator[str]:
    """Another function of the same kind: min for max, or another dtype."""
    name = node.id if isinstance(node, ast.Name) else node.attr
    if other := _NAMES.get(name) or _DTYPES.get(name):
        yield other if isinstance(node, ast.Name) else f"{ast.unparse(node.value)}.{other}"


def orders(node: ast.List | ast.Tuple) -> Iterator[str]:
    """Neighbours in a list or tuple are exchanged."""
    if not any(isinstance(element, ast.Slice | ast.Starred) for element in node.elts):
        for changed in _exchanged(node.elts):
            yield ast.unparse(type(node)(changed, ast.Load()))


def _exchanged(nodes: list[ast.expr]) -> Iterator[list[ast.expr]]:
    """The nodes with two neighbours exchanged, for all neighbours that differ."""
    for i, (one, other) in enumerate(pairwise(nodes)):
        if ast.dump(one) != ast.dump(other):
            yield [*nodes[:i], other, one, *nodes[i + 2 :]]


def _call(node: ast.Call, args: list[ast.expr], keywords: list[ast.keyword] | None = None) -> str:
    return ast.unparse(ast.Call(node.func, args, node.keywords if keywords is None else keywords))


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


# What the report calls a rule -> the kinds of nodes that it takes, and the rule.
RULES: dict[str, tuple[tuple[type[ast.AST], ...], Rule]] = {
    "operator": ((ast.BinOp,), operators),
    "dropped term": ((ast.BinOp, ast.BoolOp, ast.UnaryOp), terms),
    "condition": ((ast.BoolOp, ast.IfExp), conditions),
    "constant": ((ast.Constant,), constants),
    "comparison": ((ast.Compare,), comparisons),
    "slice": ((ast.Slice,), slices),
    "axis": ((ast.Subscript,), axes),
    "off by one": ((ast.Call,), off_by_one),
    "dropped call": ((ast.Call,), dropped_calls),
    "arguments": ((ast.Call,), arguments),
    "mask": ((ast.Call,), masks),
    "name or dtype": ((ast.Attribute, ast.Name), names),
    "order": ((ast.List, ast.Tuple), orders),
}
