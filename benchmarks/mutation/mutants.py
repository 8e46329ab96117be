"""A source file -> its mutants: one operator, sign, constant or name changed in each."""

import ast
import copy
from collections.abc import Iterator
from typing import NamedTuple

_COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
_NAMES = {"minimum": "maximum", "maximum": "minimum", "min": "max", "max": "min", "all": "any", "any": "all"}


class Mutant(NamedTuple):
    """One change."""

    line: int
    change: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    places = list(_places(ast.parse(source)))
    for number, place in enumerate(places):
        tree = copy.deepcopy(ast.parse(source))
        node = list(_places(tree))[number]
        before = ast.unparse(place)
        _change(node)
        yield Mutant(place.lineno, f"{_short(before)}  ->  {_short(ast.unparse(node))}", ast.unparse(tree))


def _places(tree: ast.AST) -> Iterator[ast.expr]:
    """The expressions that can be changed: none in messages, annotations, decorators or docstrings."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list") or isinstance(
            tree, (ast.Raise, ast.JoinedStr)
        ):
            continue
        if isinstance(tree, ast.ClassDef) and name == "bases":
            continue
        if isinstance(tree, ast.keyword) and tree.arg == "strict":  # of `zip`: a check that never speaks
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.expr) and _can_change(child):
                yield child
            if isinstance(child, ast.AST):
                yield from _places(child)


def _can_change(node: ast.expr) -> bool:
    if isinstance(node, ast.Compare):
        return type(node.ops[0]) in _COMPARISONS
    if isinstance(node, (ast.BinOp, ast.BoolOp)):
        return type(node.op) in _OPERATORS
    if isinstance(node, ast.UnaryOp):
        return not isinstance(node.op, ast.UAdd)
    if isinstance(node, ast.Attribute):
        return node.attr in _NAMES
    return isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float))


def _change(node: ast.expr) -> None:
    """Changes an expression where it stands."""
    if isinstance(node, ast.Compare):
        node.ops[0] = _COMPARISONS[type(node.ops[0])]()
    elif isinstance(node, (ast.BinOp, ast.BoolOp)):
        node.op = _OPERATORS[type(node.op)]()
    elif isinstance(node, ast.UnaryOp):
        node.op = ast.UAdd()  # of an array, a number and a truth value: itself
    elif isinstance(node, ast.Attribute):
        node.attr = _NAMES[node.attr]
    elif isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool):
            node.value = not value
        elif isinstance(value, int):
            node.value = value + 1
        else:
            node.value = 2 * value if value else 1.0


def _short(text: str) -> str:
    return text if len(text) <= 70 else f"{text[:67]}..."
