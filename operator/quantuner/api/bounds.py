"""How large a resource may be: counted before anything that recurses into it, or takes time by its size.

An API server lets 10,000 levels and some MiB pass. Here one tenant's resource must neither stop the operator of all
nor hold it up, and a ConfigMap must take it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from quantuner.api.errors import Problem

DEPTH_LIMIT = 50  # objects and lists in each other, spec itself the first
BYTES_LIMIT = 256 * 1024  # of spec as JSON in ASCII, without blanks
VALUES_LIMIT = 10_000  # in spec, objects and lists included: admission takes some 6 µs for each
_NAMED = 3  # levels that a problem's path has at most: what is too deep has no short one
_REMEDY = "put what is large into a file of the image or of a volume, and name the file in task.args"


def outgrown(body: Mapping[str, Any]) -> Problem | None:
    """The first limit that is passed. What is far beyond takes no longer to tell than what is just beyond."""
    for name, part in body.items():
        found = _too_large(part) if name == "spec" else _too_deep(_written(part), str(name))
        if found is not None:
            return found
    return None


def _written(part: Any) -> Any:
    """Without what an API server notes of every field: that is deeper than spec, and nobody's to change."""
    return {key: value for key, value in part.items() if key != "managedFields"} if isinstance(part, dict) else part


def _too_deep(part: Any, name: str) -> Problem | None:
    deep = next((where for _, depth, where in _walk(part, name) if depth > DEPTH_LIMIT), None)
    return None if deep is None else _depth_problem(deep)


def _too_large(spec: Any) -> Problem | None:
    size = 0
    for values, (value, depth, where) in enumerate(_walk(spec, "spec"), 1):
        size += _bytes(value)
        if depth > DEPTH_LIMIT:
            return _depth_problem(where)
        if values > VALUES_LIMIT:
            return Problem("spec", f"holds more than {VALUES_LIMIT:,} values; {_REMEDY}")
        if size > BYTES_LIMIT:
            return Problem("spec", f"holds more than {BYTES_LIMIT // 1024} KiB of JSON; {_REMEDY}")
    return None


def _depth_problem(where: str) -> Problem:
    return Problem(
        where, f"holds objects and lists more than {DEPTH_LIMIT} deep in each other, counted from the top; nest less"
    )


def _walk(part: Any, name: str) -> Iterator[tuple[Any, int, str]]:
    """Every value with its depth and the beginning of its path, without recursion."""
    pending: list[Iterator[tuple[Any, int, str]]] = [iter([(part, 1, name)])]
    while pending:
        found = next(pending[-1], None)
        if found is None:
            pending.pop()
            continue
        yield found
        value, depth, where = found
        if isinstance(value, (dict, list)) and value:
            pending.append(_inside(value, depth + 1, where))


def _inside(value: Any, depth: int, where: str) -> Iterator[tuple[Any, int, str]]:
    if isinstance(value, list):
        yield from ((item, depth, where) for item in value)
    else:
        for key, item in value.items():
            yield item, depth, f"{where}.{key}" if depth <= _NAMED else where


def _bytes(value: Any) -> int:
    """What it adds to the JSON, with the comma after it; objects and lists without what is inside."""
    if isinstance(value, dict):
        return 3 + sum(1 + _spelt(key) for key in value)
    return 3 if isinstance(value, list) else 1 + _spelt(value)


def _spelt(value: Any) -> int:
    if isinstance(value, str):
        # Of one that passes the limit by itself no second text is made.
        return len(value) if len(value) > BYTES_LIMIT else len(json.dumps(value))
    if type(value) is int:  # which Python does not spell beyond 4,300 digits
        return value.bit_length() // 3 + 2
    return len(json.dumps(value)) if isinstance(value, (bool, float, type(None))) else 0
