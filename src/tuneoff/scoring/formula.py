"""The formula of a `multi` grader: arithmetic over the scores of its graders, and nothing else."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tuneoff.errors import ConfigError, explain_unknown

_OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    # Floats only: a power of whole numbers may take for ever.
    ast.Pow: lambda a, b: math.pow(a, b),
    ast.UAdd: lambda a: a,
    ast.USub: lambda a: -a,
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
# Bounds the nesting, too; nobody writes a longer formula.
MAX_CHARACTERS = 2000


class Formula:
    """A formula such as `(name + email) / 2`; `^` is the power."""

    def __init__(self, text: str, names: Collection[str], where: str) -> None:
        """Parse and check a formula.

        Raises:
            ConfigError: the text is not a formula, or names anything but the graders.
        """
        try:
            if len(text) > MAX_CHARACTERS:
                raise ValueError(f"it has more than {MAX_CHARACTERS} characters")
            self._tree = ast.parse(text.replace("^", "**").strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError) as error:
            first = getattr(error, "msg", None) or str(error)
            raise ConfigError(
                f"{where}: calculate_output is no formula ({first}); write one such as "
                f"{' + '.join(names)}."
            ) from None
        self._check(self._tree, names, where)

    def evaluate(self, values: Mapping[str, float]) -> float:
        """Return the value of the formula.

        Raises:
            ArithmeticError, ValueError: it has none, for example where it divides by zero.
        """
        value = float(_evaluate(self._tree, values))
        if not math.isfinite(value):
            raise ValueError("the formula gives no finite number")
        return value

    def _check(self, node: ast.AST, names: Collection[str], where: str) -> None:
        match node:
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                inner = [left, right]
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
                inner = [operand]
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
                inner = args
                if not args:
                    raise ConfigError(f"{where}: calculate_output: {name}() needs a value.")
            case ast.Name(id=name):
                if name not in names:
                    raise ConfigError(
                        f"{where}: calculate_output: {explain_unknown('grader', name, names)}."
                    )
                inner = []
            case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
                inner = []
            case _:
                raise ConfigError(
                    f"{where}: calculate_output holds {ast.unparse(node)!r:.60}; allowed are the "
                    f"graders' names, numbers, + - * / ^ and {', '.join(FUNCTIONS)}."
                )
        for child in inner:
            self._check(child, names, where)


def _evaluate(node: ast.AST, values: Mapping[str, float]) -> Any:
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_evaluate(left, values), _evaluate(right, values))
        case ast.UnaryOp(op=op, operand=operand):
            return _OPERATORS[type(op)](_evaluate(operand, values))
        case ast.Call(func=ast.Name(id=name), args=args):
            return FUNCTIONS[name](*(_evaluate(argument, values) for argument in args))
        case ast.Name(id=name):
            return values[name]
        case ast.Constant(value=value):
            return value
    raise AssertionError("the formula was checked")
