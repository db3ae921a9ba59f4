"""Expressions of kernel declarations: one text, evaluated in Python and written out in C++.

They hold integers, names, + - * // %, comparisons, and, or, not, `a if condition else b`, min(a, b), max(a, b) and
cdiv(a, b), the quotient rounded up. Operands are not negative, so that // means the same in both languages.
"""

import ast
from collections.abc import Callable, Mapping

from inflight.errors import InflightError

_OPERATORS = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.FloorDiv: "/",
    ast.Mod: "%",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.And: "&&",
    ast.Or: "||",
}
_FUNCTIONS = {"min": min, "max": max, "cdiv": lambda a, b: -(-a // b)}


def names(text: str) -> set[str]:
    """The names that the expression reads."""
    return {node.id for node in ast.walk(_parse(text)) if isinstance(node, ast.Name)} - _FUNCTIONS.keys()


def evaluate(text: str, values: Mapping[str, object]) -> object:
    """The expression's value. Raises NameError for a name that `values` lacks and that the result depends on."""
    return eval(compile(_parse(text), text, "eval"), {"__builtins__": {}, **_FUNCTIONS}, dict(values))


def to_cpp(text: str, name: Callable[[str], str], constant: Callable[[object], str] = str) -> str:
    """The expression in C++; `name` spells a name and `constant` a string."""

    def write(node: ast.AST) -> str:
        match node:
            case ast.Expression():
                return write(node.body)
            case ast.Name():
                return name(node.id)
            case ast.Constant(value=bool() as value):
                return "true" if value else "false"
            case ast.Constant(value=int() as value):
                return str(value)
            case ast.Constant(value=str() as value):
                return constant(value)
            case ast.BinOp() if type(node.op) in _OPERATORS:
                return f"({write(node.left)} {_OPERATORS[type(node.op)]} {write(node.right)})"
            case ast.BoolOp():
                return "(" + f" {_OPERATORS[type(node.op)]} ".join(map(write, node.values)) + ")"
            case ast.Compare(ops=[operator]) if type(operator) in _OPERATORS:
                return f"({write(node.left)} {_OPERATORS[type(operator)]} {write(node.comparators[0])})"
            case ast.UnaryOp(op=ast.Not()):
                return f"!{write(node.operand)}"
            case ast.IfExp():
                return f"({write(node.test)} ? {write(node.body)} : {write(node.orelse)})"
            case ast.Call(func=ast.Name(id=function)) if function in _FUNCTIONS and not node.keywords:
                a, b = map(write, node.args)
                if function == "cdiv":
                    return f"(({a} + {b} - 1) / {b})"
                return f"std::{function}<int64_t>({a}, {b})"
        raise InflightError(f"the expression {text!r} holds {ast.unparse(node)!r}: C++ launchers cannot evaluate that")

    return write(_parse(text))


def _parse(text: str) -> ast.Expression:
    try:
        return ast.parse(text, mode="eval")
    except SyntaxError as error:
        raise InflightError(f"the expression {text!r} is not valid: {error.msg}") from error
