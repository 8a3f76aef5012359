"""Identifies data by the first batch that a loader gives, so that ranks can compare theirs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from quantuner.api.conditions import Failure
from quantuner.engine.entrypoint import users_code
from quantuner.engine.ranges import tensor_bytes


def first_batch_digest(loader: Iterable[Any], reason: Failure, name: str) -> str:
    """16 hex digits over the content of the first batch, labels included; empty where it can be read once only.

    Reading it leaves torch's random numbers as they were: a loader that shuffles gives the next pass what it would
    have given this one. Raises `SearchError` with `reason` where the loader raises; `name` is what messages call it.
    """
    if isinstance(loader, Iterator):
        return ""
    with users_code(reason, f"reading {name}"), torch.random.fork_rng(devices=[]):
        first = next(iter(loader), None)
    seen = Contents()
    seen.update(first)
    return seen.value


class Contents:
    """A digest over the content of batches, labels included."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def update(self, batch: Any) -> None:
        for part in _parts(batch):
            self._sha.update(part)

    @property
    def value(self) -> str:
        """16 hex digits."""
        return self._sha.hexdigest()[:16]


def _parts(value: Any) -> Iterator[bytes | memoryview]:
    """Bytes that are equal for equal batches: kinds, shapes and contents, in order."""
    if isinstance(value, Mapping):
        yield f"mapping of {len(value)}".encode()
        for key, one in value.items():
            yield repr(key).encode()
            yield from _parts(one)
    elif isinstance(value, (list, tuple)):
        yield f"sequence of {len(value)}".encode()
        for one in value:
            yield from _parts(one)
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield tensor_bytes(value)
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape}".encode()
        yield value.tobytes()
    else:
        plain = isinstance(value, (str, bytes, int, float, complex, np.generic)) or value is None
        yield repr(value if plain else type(value)).encode()  # the repr of anything else may hold its address
