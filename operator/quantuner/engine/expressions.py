"""Which expressions of sizes a saved program may have: torch evaluates them as Python.

Those of shapes go through sympy's `sympify`, with all that sympy exports and Python's built-in functions in sight;
those of guards become the source of a function. So what is called must compute and do no more, with whatever
arguments: `max("import x", key=exec)` imports. Source: torch 2.13, torch/_export/serde/serialize.py and
torch/export/_unlift.py.
"""

from __future__ import annotations

import ast
import builtins
import re

from quantuner.engine.texts import is_name

_WORD = re.compile(r"[A-Za-z]\w*")
_SIZES = ("size", "stride", "storage_offset", "dim", "ndimension")
_PYTHON = ("int", "float", "bool", "abs", "min", "max", "round", "len")
_SYMPY = (
    *("Symbol", "Integer", "Rational", "Float", "Add", "Mul", "Pow", "Mod", "Max", "Min", "Abs", "floor", "ceiling"),
    *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "And", "Or", "Not"),
    *("StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan", "Piecewise", "ExprCondPair"),
)
_TORCH = (
    *("FloorDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilDiv", "LShift", "RShift"),
    *("CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt", "TruncToFloat", "ToFloat", "RoundDecimal", "Identity"),
    *("PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv", "IsNonOverlappingAndDenseIndicator"),
)
_CALLED = frozenset((*_PYTHON, *_SYMPY, *_TORCH))
_CALLED_OF = {
    "math": ("ceil", "floor", "trunc", "sqrt", "exp", "log", "log2", "log10", "pow"),
    "torch": ("sym_float", "sym_int", "sym_ite", "sym_max", "sym_min", "sym_not", "sym_sqrt", "_sym_sqrt", "_sym_log2"),
}
"""Functions of modules, as torch writes them in guards. Others of math take for ever, as `factorial`."""
_POWERS = ("Pow", "PowByNatural", "FloatPow", "LShift", "pow")
_LARGEST = 64
"""Of exponents, since sizes have 64 bits."""
_SYNTAX = (
    *(ast.Expression, ast.BoolOp, ast.boolop, ast.BinOp, ast.operator, ast.UnaryOp, ast.unaryop, ast.Compare),
    *(ast.cmpop, ast.Call, ast.keyword, ast.Constant, ast.Name, ast.Load, ast.Subscript, ast.Attribute, ast.IfExp),
)
_ELSEWHERE = ("#", "\\", "\n", "\r")
"""What ends or goes on elsewhere once the text stands in a line of code."""


def harmless(expression: str) -> bool:
    """Whether evaluating it can do no more than compute with sizes."""
    if any(mark in expression for mark in _ELSEWHERE):
        return False
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return all(isinstance(node, _SYNTAX) and _computes(node, id(node) in called) for node in ast.walk(tree))


def _computes(node: ast.AST, is_called: bool) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _CALLED if is_called else _is_size(node.id)
    if isinstance(node, ast.Attribute):
        module = node.value.id if isinstance(node.value, ast.Name) else ""
        return node.attr in _CALLED_OF.get(module, _SIZES)
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, (str, bytes)) or is_name(str(node.value))
    if isinstance(node, ast.keyword):  # as positive=True, or precision=53
        return node.arg is not None and _is_small(node.value)
    if isinstance(node, ast.Call) and not isinstance(node.func, (ast.Name, ast.Attribute)):
        return False
    return not _is_power(node) or _ends(node)


def _is_power(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, (ast.Pow, ast.LShift))
    return isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in _POWERS


def _ends(power: ast.AST) -> bool:
    """Whether it is computed at once, as a power of a power might not be: its digits are too many."""
    parts = [power.left, power.right] if isinstance(power, ast.BinOp) else getattr(power, "args", [])
    return len(parts) == 2 and _is_small(parts[1]) and not any(map(_is_power, ast.walk(parts[0])))


def _is_small(number: ast.expr) -> bool:
    """Whether it is a constant up to `_LARGEST`, as `Integer(2)`, `Rational(-1, 2)` or `Float('0.5', precision=53)`."""
    if isinstance(number, ast.UnaryOp):
        return _is_small(number.operand)
    if isinstance(number, ast.Call):
        is_number = isinstance(number.func, ast.Name) and number.func.id in ("Integer", "Rational", "Float")
        return is_number and all(map(_is_small, number.args))
    try:
        return isinstance(number, ast.Constant) and abs(float(number.value)) <= _LARGEST  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False


def _is_size(name: str) -> bool:
    """A size's name, or that of the inputs: no function, which another one might call."""
    return bool(_WORD.fullmatch(name)) and not hasattr(builtins, name)
