"""What may stand in the fields of a journal's record: anybody may have written the line, and many read it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_GREATEST = sys.float_info.max
_INT64 = 2**63  # what a status holds


def is_finite(value: Any) -> bool:
    """Whether it is a number that a double can hold; JSON's integers have any number of digits."""
    return type(value) in (int, float) and -_GREATEST <= value <= _GREATEST  # not a number is never between


def _is_count(value: Any) -> bool:
    return type(value) is int and -_INT64 <= value < _INT64


class Kind(NamedTuple):
    name: str
    """For people, as in `must be a text`."""
    holds: Callable[[Any], bool]


TEXT = Kind("a text", lambda value: type(value) is str)
COUNT = Kind("an integer of 64 bits", _is_count)
NUMBER = Kind("a finite number", is_finite)
TRUTH = Kind("true or false", lambda value: type(value) is bool)
COUNT_OR_NONE = Kind("an integer of 64 bits or null", lambda value: value is None or _is_count(value))
NUMBER_OR_NONE = Kind("a finite number or null", lambda value: value is None or is_finite(value))
TEXTS = Kind("a list of texts", lambda value: type(value) is list and all(type(one) is str for one in value))
COUNTS = Kind("a list of integers", lambda value: type(value) is list and all(map(_is_count, value)))
NUMBERS = Kind("finite numbers by name", lambda value: type(value) is dict and all(map(is_finite, value.values())))

# By annotation, of a record's dataclass; an enum's members are texts.
_BY_ANNOTATION: Mapping[str, Kind] = {
    "str": TEXT,
    "TrialState": TEXT,
    "Outcome": TEXT,
    "Selection": TEXT,
    "int": COUNT,
    "float": NUMBER,
    "bool": TRUTH,
    "int | None": COUNT_OR_NONE,
    "float | None": NUMBER_OR_NONE,
    "tuple[str, ...]": TEXTS,
    "tuple[int, ...]": COUNTS,
    "dict[str, float]": NUMBERS,
}


def kind_of(annotation: str) -> Kind:
    """What JSON must hold for a field with this annotation."""
    return _BY_ANNOTATION[annotation]
