"""Attributes that are checked when they are set, by a table that names what is allowed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

Check = Callable[[Any], Any]
"""Takes the value given, returns the one kept; raises `ValueError` with the rule and the remedy."""


def near(given: object, known: Iterable[str]) -> str:
    """` (did you mean …?)`, or nothing."""
    found = difflib.get_close_matches(str(given), list(known), n=1, cutoff=0.4)
    return f" (did you mean {found[0]!r}?)" if found else ""


def one_of(*allowed: Any) -> Check:
    texts = [a for a in allowed if isinstance(a, str)]  # the text 'True' is near no boolean

    def check(value: Any) -> Any:
        if not any(type(value) is type(a) and value == a for a in allowed):
            raise ValueError(f"must be one of {', '.join(map(repr, allowed))}{near(value, texts)}")
        return value

    return check


def only(default: Any, why: str) -> Check:
    """An argument of other frameworks: it may be said, as long as it says the default. `why` is said of its name."""

    def check(value: Any) -> Any:
        if value != default:
            raise ValueError(f"{why}; leave it at {default!r}")
        return value

    return check


def unboxed(value: Any) -> Any:
    """A scalar of NumPy as Python's own, which YAML and JSON can say; anything else as it is."""
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0 else value


def number(*, least: float | None = None, integer: bool = False) -> Check:
    kind = "an integer" if integer else "a number"

    def check(value: Any) -> Any:
        value = unboxed(value)
        fits = isinstance(value, int if integer else (int, float)) and not isinstance(value, bool)
        if not fits or (least is not None and value < least):
            raise ValueError(f"must be {kind}{'' if least is None else f' of at least {least}'}")
        if isinstance(value, float) and not math.isfinite(value):  # no comparison with NaN holds
            raise ValueError("must be a finite number")
        return value

    return check


def each_once(values: Sequence[Any]) -> None:
    """Refuses a value that is there twice."""
    if twice := [value for value in values if values.count(value) > 1]:
        raise ValueError(f"must give each value once, but has {twice[0]!r} twice; remove one")


def anything(value: Any) -> Any:
    return value


class Checked:
    """A plain object whose attributes are those of its table, checked whenever they are set."""

    _checks: ClassVar[Mapping[str, Check]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._checks:
            raise AttributeError(f"{type(self).__name__} has no {name!r}{near(name, self._checks)}")
        try:
            kept = self._checks[name](value)
            self._check_together({**vars(self), name: kept})
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}.{name} {error}; it is {value!r:.100}") from None
        super().__setattr__(name, kept)

    def _check_together(self, values: Mapping[str, Any]) -> None:
        """Refuses values that are allowed one by one, but not together; called before they are kept."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={getattr(self, k)!r}' for k in self._checks)})"
