"""What one plain payload has other than another: trials of a search differ in few of their ops.

A difference is made of plain data alone, since a batch of quick trials spends much of its time in pickle:

| difference | makes of its base |
| --- | --- |
| `(value,)` | `value`, whatever the base is |
| `{key: difference, …}` | the base, a mapping, with these keys changed, or new at its end |
| `({key: difference, …}, keys)` | the same, then all of these keys and no others, in this order |
"""

from __future__ import annotations

from marshal import dumps
from typing import Any

Difference = tuple[Any] | tuple[dict[str, Any], tuple[str, ...]] | dict[str, Any]

EXACT = 2
"""Version of marshal's format that spells the same value the same way, since it has no references. It tells types, the
sign of zero and the order of keys apart, which `==` does not."""

FEW = 8
"""A mapping with so few keys, and none inside, costs less as a whole."""


class Reference:
    """A payload from which many others are told apart; what concerns it alone is done once.

    Payloads are plain: None, bool, int, float, str, bytes, and lists, tuples and dicts of these.
    """

    __slots__ = ("_keys", "_parts", "_spelled", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self._spelled = _spelled(value)
        self._parts = {key: Reference(part) for key, part in value.items()} if _is_divided(value) else None
        self._keys = list(self._parts or ())

    def difference(self, payload: Any) -> Difference:
        """What `apply` makes `payload` of, types and the order of keys included."""
        try:
            return self._difference(payload)
        except ValueError:  # marshal's, of what is not plain
            return (payload,)

    def _difference(self, payload: Any) -> Difference:
        parts = self._parts
        if parts is None or type(payload) is not dict:
            return (payload,)
        changed: dict[str, Any] = {}
        for key, value in payload.items():
            if (part := parts.get(key)) is None:
                changed[key] = (value,)
            elif part._parts is None:
                if part._spelled != dumps(value, EXACT):
                    changed[key] = (value,)
            elif inner := part._difference(value):
                changed[key] = inner
        keys = list(payload)
        return changed if keys[: len(self._keys)] == self._keys else (changed, tuple(keys))


def _is_divided(value: Any) -> bool:
    """Whether only what differs inside is named. All keys are strings then, since 1 and True would be one."""
    if type(value) is not dict or any(type(key) is not str for key in value):
        return False
    return len(value) > FEW or any(type(part) is dict for part in value.values())


def _spelled(value: Any) -> bytes | None:
    try:
        return dumps(value, EXACT)
    except ValueError:
        return None


def apply(base: Any, change: Difference) -> Any:
    """The payload that `change` was made for. `base` is not changed; parts of it are shared."""
    if isinstance(change, dict):
        return {**base, **{key: apply(base.get(key), one) for key, one in change.items()}}
    if len(change) == 1:
        return change[0]
    changed, keys = change
    made = apply(base, changed)
    return {key: made[key] for key in keys}
