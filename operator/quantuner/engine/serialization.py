"""torch's reading and writing of programs without what they do again and again, or for nobody.

Source: torch 2.13, torch/_export/serde/serialize.py and torch/fx/experimental/symbolic_shapes.py. What is written and
read is the same to the byte.
"""

from __future__ import annotations

import contextlib
import functools
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from torch._export.serde import serialize
from torch.fx.experimental import symbolic_shapes

_names, _shapes = vars(serialize), vars(symbolic_shapes)
_sympy = _names["sympy"]
_SYMBOL = re.compile(r"Symbol\('\w+'[^()]*\)")
_canonicalize, _uninteresting = serialize.canonicalize, symbolic_shapes.uninteresting_files


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """Saves and loads programs with less work while the block runs.

    Reading evaluates the annotations of a class for every object of it that a program holds, half of what reading
    takes: here once for each class. It parses the symbol of a size each time that a shape has it, and imports all that
    captures models to tell where in a user's code a size was constrained, which no user's code did. Writing brings a
    copy of the program into a canonical form, a fourth of what it takes, and drops it.
    """
    hints = types.SimpleNamespace(**{**vars(typing), "get_type_hints": _Hints()})
    parsing = types.SimpleNamespace(**{**vars(_sympy), "sympify": _parsed})
    _names.update(typing=hints, sympy=parsing, canonicalize=_unread)
    _shapes.update(uninteresting_files=frozenset)
    try:
        yield
    finally:
        _names.update(typing=typing, sympy=_sympy, canonicalize=_canonicalize)
        _shapes.update(uninteresting_files=_uninteresting)


class _Hints:
    """`typing.get_type_hints`, asked once for each class."""

    def __init__(self) -> None:
        self._known: dict[Any, dict[str, Any]] = {}

    def __call__(self, cls: Any, **names: Any) -> dict[str, Any]:
        if cls not in self._known:
            self._known[cls] = typing.get_type_hints(cls, **names)
        return self._known[cls]


def _parsed(text: Any, **options: Any) -> Any:
    """As `sympify`; of a symbol, whose text says all of it, what it was at first."""
    is_symbol = isinstance(text, str) and _SYMBOL.fullmatch(text)
    return _symbol(text) if is_symbol else _sympy.sympify(text, **options)


@functools.cache
def _symbol(text: str) -> Any:
    return _sympy.sympify(text)


def _unread(program: Any, _: set[str] | None = None) -> Any:
    return program
