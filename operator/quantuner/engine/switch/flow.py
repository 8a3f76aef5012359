"""Integers from one int8 kernel to the next: what lies between two rounded ops and can be computed by the first one's.

A ReLU that alone reads an op's output is part of its kernel. Where all that reads the ReLU rounds it to one grid, the
kernel rounds, too, and fp32 is never written to memory. Both give the bits of one step after the other, as long as the
op's output is a number: so only of ops whose input has one grid in every batch and whose bias is finite.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch.fx import Node

from quantuner.engine.operators import inputs_of
from quantuner.engine.sums import sums_integers
from quantuner.engine.switch.integers import InputGrid
from quantuner.engine.switch.program import may_be_written_over
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
    """What follows an op's sums and their scale, which are no NaN."""

    rectifies: bool = False
    grid: InputGrid | None = None
    """What its output is rounded to, where it is. Its zero point is 0: kernels add one before they round, and so
    round other ties.
    """

    def of(self, value: torch.Tensor) -> torch.Tensor:
        """Of an op's output in fp32, which may be written over."""
        if self.rectifies:
            value = value.relu_() if may_be_written_over(value) else value.relu()
        return value if self.grid is None else self.grid.bytes(value)


NOTHING = After()


@dataclass(frozen=True)
class Flow:
    """What ops of a graph compute beyond themselves, under one configuration."""

    after: Mapping[Node, After] = field(default_factory=dict)
    """Of ops, by node."""
    computed_by: Mapping[Node, Node] = field(default_factory=dict)
    """ReLU to the op whose kernel it is part of."""

    def grid(self, node: Node) -> InputGrid | None:
        """That of a value which is known by its integers."""
        return self.after[self.computed_by[node]].grid if node in self.computed_by else None


def rectified(ops: Collection[Node]) -> dict[Node, Node]:
    """ReLU to the op that it alone reads, of `ops` that add up integers."""
    found = {}
    for op in ops:
        reader = next(iter(op.users), None)
        if len(op.users) == 1 and reader is not None and reader.target is _aten.relu.default:
            found[reader] = op
    return found


def flow(
    rectified: Mapping[Node, Node],
    names: Mapping[Node, str],
    types: Mapping[Node, str],
    config: Mapping[str, OpConfig],
    grid_of: Callable[[str, OpConfig], InputGrid | None],
) -> Flow:
    """That of a configuration. `names` and `types` are those of all ops; `grid_of` gives the grid of an input that has
    the same in every batch.
    """

    def of(node: Node) -> OpConfig:
        return config.get(names[node], FP32) if node in names else FP32

    def grid(reader: Node, value: Node) -> InputGrid | None:
        rounds = of(reader).mode is Mode.STATIC and sums_integers(types[reader]) and inputs_of(reader) == (value,)
        found = grid_of(names[reader], of(reader)) if rounds else None
        return None if found is None else found.of_what_is_not_negative()

    computed_by = {relu: op for relu, op in rectified.items() if of(op).mode is Mode.STATIC}
    after = {}
    for relu, op in computed_by.items():
        grids = {grid(reader, relu) for reader in relu.users}
        after[op] = After(True, next(iter(grids)) if len(grids) == 1 else None)
    return Flow(after, computed_by)
