"""What one plain payload has other than another: trials of a search differ in few of their ops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Difference:
    """Makes a payload from a base. Either `whole` is the payload, or the rest says what changes in a mapping."""

    whole: Any = None
    replaces: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)
    """Keys with new values."""
    inner: Mapping[str, Difference] = field(default_factory=dict)
    """Keys whose values are mappings in both."""
    removed: tuple[str, ...] = ()
    order: tuple[str, ...] | None = None
    """All keys, where their order is another one."""


def difference(base: Any, payload: Any) -> Difference:
    """What `apply` makes `payload` of, the order of keys included."""
    if not (isinstance(base, Mapping) and isinstance(payload, Mapping)):
        return Difference(whole=payload, replaces=True)
    values, inner = {}, {}
    for key, value in payload.items():
        if key in base and repr(base[key]) == repr(value):  # not ==, for which 1, 1.0 and True are one payload
            continue
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            inner[key] = difference(base[key], value)
        else:
            values[key] = value
    removed = tuple(key for key in base if key not in payload)
    result = Difference(values=values, inner=inner, removed=removed)
    if list(map(repr, _applied(base, result))) != list(map(repr, payload)):
        return Difference(values=values, inner=inner, removed=removed, order=tuple(payload))
    return result


def apply(base: Any, change: Difference) -> Any:
    """The payload that `change` was made for. `base` is not changed; parts of it are shared."""
    if change.replaces:
        return change.whole
    made = _applied(base, change)
    return made if change.order is None else {key: made[key] for key in change.order}


def _applied(base: Mapping[str, Any], change: Difference) -> dict[str, Any]:
    removed = set(change.removed)
    kept = {key: value for key, value in base.items() if key not in removed}
    inner = {key: apply(base[key], one) for key, one in change.inner.items()}
    return {**kept, **inner, **change.values}
