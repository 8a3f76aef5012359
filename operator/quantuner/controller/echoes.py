"""Tells the events of a resource that a write of ours caused from all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantuner.api.spec import digest
from quantuner.controller.objects import Key, Manifest

# They change with every write, whatever it writes.
_BOOKKEEPING = ("resourceVersion", "managedFields")


class Echoes:
    """Remembers how the last look left each resource. In memory only: a restart looks at all of them."""

    def __init__(self) -> None:
        self._left: dict[Key, str] = {}
        """Digests: a resource may be large, and there may be thousands."""

    def leave(self, key: Key, body: Manifest, status: Mapping[str, Any]) -> None:
        """`status` is about to be written into `body`, or stands there already."""
        self._left[key] = _essence({**body, "status": status})

    def is_echo(self, key: Key, body: Manifest) -> bool:
        """Whether the resource is what the last look made of it, so that another one would find nothing new."""
        return key in self._left and self._left[key] == _essence(body)

    def forget(self, key: Key) -> None:
        self._left.pop(key, None)


def _essence(body: Manifest) -> str:
    meta = {key: value for key, value in body["metadata"].items() if key not in _BOOKKEEPING}
    return digest({**body, "metadata": meta, "status": _as_read(body.get("status", {}))})


def _as_read(value: Any) -> Any:
    """Numbers in one spelling: an API server writes 3.0 as 3."""
    if isinstance(value, Mapping):
        return {key: _as_read(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_read(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
