"""torch's reading and writing of programs without what they do again and again, or for nobody.

Source: torch 2.13, torch/_export/serde/serialize.py. What is written and read is the same to the byte.
"""

from __future__ import annotations

import contextlib
import types
import typing
from collections.abc import Iterator
from typing import Any

from torch._export.serde import serialize

_names = vars(serialize)
_canonicalize = serialize.canonicalize


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """Saves and loads programs with less work while the block runs.

    Reading evaluates the annotations of a class for every object of it that a program holds, half of what reading
    takes: here once for each class. Writing brings a copy of the program into a canonical form, a fourth of what it
    takes, and drops it.
    """
    known = {**vars(typing), "get_type_hints": _Hints()}
    _names.update(typing=types.SimpleNamespace(**known), canonicalize=_unread)
    try:
        yield
    finally:
        _names.update(typing=typing, canonicalize=_canonicalize)


class _Hints:
    """`typing.get_type_hints`, asked once for each class."""

    def __init__(self) -> None:
        self._known: dict[Any, dict[str, Any]] = {}

    def __call__(self, cls: Any, **names: Any) -> dict[str, Any]:
        if cls not in self._known:
            self._known[cls] = typing.get_type_hints(cls, **names)
        return self._known[cls]


def _unread(program: Any, _: set[str] | None = None) -> Any:
    return program
