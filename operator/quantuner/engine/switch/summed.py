"""One call of an op that adds up integers and scales the sums, as `scale_after_sums` has it in saved models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from quantuner.engine.sums import BIAS, along_channels, scale_of_sums
from quantuner.engine.switch.integers import InputGrid, IntegerWeight


@dataclass(frozen=True)
class Summed:
    """An op under one configuration, for one batch."""

    node: Node
    type: str
    weight: IntegerWeight
    grid: InputGrid
    """Of its input."""
    bias: torch.Tensor | None
    """`(C,)` float32."""
    rest: tuple[Any, ...]
    """The arguments that follow the bias."""

    @classmethod
    def of(cls, node: Node, type_: str, weight: IntegerWeight, grid: InputGrid, values: Mapping[Node, Any]) -> Summed:
        """The call of a captured node; `values` has its arguments."""
        given: Any = map_arg(tuple(node.args[BIAS:]), values.__getitem__)
        bias, *rest = given or (None,)
        return cls(node, type_, weight, grid, bias, tuple(rest))

    @property
    def scale(self) -> torch.Tensor:
        """What a unit of the sums is worth, so that it broadcasts over the output."""
        return scale_of_sums(self.grid.scale, self.weight.scale, self.type, self.node)

    def in_fp32(self, integers: torch.Tensor) -> torch.Tensor:
        """The output for the integers of an input less their zero point, float32."""
        call: Any = self.node.target
        given = (None, *self.rest) if len(self.node.args) > BIAS else ()
        sums: torch.Tensor = call(integers, self.weight.fp32, *given)
        sums.mul_(self.scale)
        return sums if self.bias is None else sums.add_(along_channels(self.bias, self.type))
