"""Integers from one int8 kernel to the next: what lies between two rounded ops and can be computed by the first one's.

A ReLU that alone reads an op's output is part of its kernel. Where all that reads the ReLU rounds it to one grid, the
kernel rounds, too, and fp32 is never written to memory. Both give the bits of one step after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch.fx import Node

from quantuner.engine.operators import inputs_of
from quantuner.engine.sums import sums_integers
from quantuner.engine.switch.integers import InputGrid
from quantuner.space.capability import Mode
from quantuner.space.config import FP32, OpConfig

_aten = torch.ops.aten


class Rounded(NamedTuple):
    """A value that is known by its integers."""

    integers: torch.Tensor
    """uint8."""
    grid: InputGrid

    def fp32(self) -> torch.Tensor:
        """The integers less their zero point, in fp32."""
        return self.integers.to(torch.float32).sub_(self.grid.zero_point)


@dataclass(frozen=True)
class After:
    """What follows an op's sums and their scale."""

    rectifies: bool = False
    grid: InputGrid | None = None
    """What its output is rounded to, where it is. Its zero point is 0: kernels add one before they round, and so
    round other ties.
    """

    def of(self, value: torch.Tensor) -> torch.Tensor:
        """Of an op's output in fp32, which is written over."""
        value = value.relu_() if self.rectifies else value
        return value if self.grid is None else self.grid.bytes(value)


NOTHING = After()


@dataclass(frozen=True)
class Flow:
    """What ops of a graph compute beyond themselves, under one configuration."""

    after: Mapping[Node, After] = field(default_factory=dict)
    """Of ops, by node."""
    source: Mapping[Node, Node] = field(default_factory=dict)
    """ReLU to the op that computes it."""

    def grid(self, node: Node) -> InputGrid | None:
        """That of a value which is known by its integers."""
        return self.after[self.source[node]].grid if node in self.source else None


def rectified(types: Mapping[Node, str]) -> dict[Node, Node]:
    """ReLU to the op that it alone reads; `types` are those of ops."""
    found = {}
    for node, type_ in types.items():
        reader = next(iter(node.users), None)
        if sums_integers(type_) and len(node.users) == 1 and reader is not None and reader.target is _aten.relu.default:
            found[reader] = node
    return found


def flow(
    pairs: Mapping[Node, Node],
    names: Mapping[Node, str],
    types: Mapping[Node, str],
    config: Mapping[str, OpConfig],
    grid_of: Callable[[str, OpConfig], InputGrid | None],
) -> Flow:
    """That of a configuration. `pairs` are `rectified` ops, `names` and `types` those of all ops; `grid_of` gives the
    grid of an input that has the same in every batch.
    """

    def of(node: Node) -> OpConfig:
        return config.get(names[node], FP32) if node in names else FP32

    def grid(reader: Node, value: Node) -> InputGrid | None:
        rounds = of(reader).mode is Mode.STATIC and sums_integers(types[reader]) and inputs_of(reader) == (value,)
        found = grid_of(names[reader], of(reader)) if rounds else None
        return None if found is None else found.of_what_is_not_negative()

    source = {relu: op for relu, op in pairs.items() if of(op).mode in (Mode.STATIC, Mode.DYNAMIC)}
    grids = {relu: {grid(reader, relu) for reader in relu.users} for relu in source}
    shared = {relu: grids[relu].pop() if len(grids[relu]) == 1 else None for relu in source}
    return Flow({op: After(True, shared[relu]) for relu, op in source.items()}, source)
