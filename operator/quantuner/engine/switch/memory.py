"""Values kept from one evaluation to the next, within a budget."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from quantuner.space.config import OpConfig

BUDGET_BYTES = 256 * 2**20
"""Of the values that a rank keeps; about what torch itself takes when it is imported."""

Signature = tuple[object, ...]
"""What a value depends on besides its batch: equal signatures, equal values."""


class Memory:
    """The last value of some nodes for every batch.

    Which nodes is decided by what they are worth: while there is too much, the node with least work above it per byte
    is given up for all batches, since a value that is there for some batches only saves little.
    """

    def __init__(self, budget: int, worth: Mapping[Node, float]) -> None:
        """`budget` in bytes; `worth` is how much work a value of each node saves, in any unit."""
        self.budget = budget
        self._worth = dict(worth)
        self._bytes: dict[Node, int] = defaultdict(int)
        self._kept: dict[Node, dict[bytes, tuple[Signature, Any]]] = {node: {} for node in worth}

    def clear(self) -> None:
        """Drops all values; what was given up stays so."""
        self._bytes.clear()
        self._kept = {node: {} for node in self._kept}

    @property
    def held(self) -> int:
        """Bytes, now."""
        return sum(self._bytes.values())

    @property
    def nodes(self) -> Iterable[Node]:
        """Those whose values are kept, if there are any."""
        return self._kept.keys()

    def known(self, batch: bytes, signatures: Mapping[Node, Signature]) -> dict[Node, Any]:
        """Values that are right for the batch under a configuration, which gives the nodes these signatures."""
        found = {}
        for node, kept in self._kept.items():
            signature, value = kept.get(batch, (None, None))
            if signature is not None and signature == signatures[node]:
                found[node] = value
        return found

    def keep(self, batch: bytes, node: Node, signature: Signature, value: Any) -> None:
        """Takes a value in place of the batch's last one. A node that was given up is not taken again."""
        kept = self._kept.get(node)
        if kept is None:
            return
        self._bytes[node] += _size(value) - _size(kept.get(batch, (None, None))[1])
        kept[batch] = (signature, value)
        while self.held > self.budget:
            self._give_up(min(self._kept, key=lambda n: self._worth[n] / max(1, self._bytes[n])))

    def _give_up(self, node: Node) -> None:
        del self._kept[node]
        self._bytes.pop(node, None)


def batch_digest(inputs: Iterable[Any]) -> bytes:
    """Identifies a batch by its content: equal digests, equal inputs."""
    sha = hashlib.blake2b(digest_size=16)
    for value in tree_leaves(list(inputs)):
        if isinstance(value, torch.Tensor):
            sha.update(f"{tuple(value.shape)} {value.stride()} {value.dtype}".encode())
            sha.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        else:
            sha.update(repr(value).encode())
    return sha.digest()


def storages(values: Any) -> set[int]:
    """Addresses of the memory that the tensors among `values` lie in."""
    return {v.untyped_storage().data_ptr() for v in tree_leaves(values) if isinstance(v, torch.Tensor)}


def interned(known: dict[OpConfig, OpConfig], config: Mapping[str, OpConfig]) -> dict[str, OpConfig]:
    """The same configuration with one object for equal op configurations, so that comparing them is quick."""
    return {name: known.setdefault(op, op) for name, op in config.items()}


def _size(value: Any) -> int:
    return sum(v.untyped_storage().nbytes() for v in tree_leaves(value) if isinstance(v, torch.Tensor))
