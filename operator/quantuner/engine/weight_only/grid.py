"""The grid of a weight in few bits, and rounding to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from quantuner.engine.weight_only.primitives import MappingType, choose_qparams_affine, quantize_affine
from quantuner.space.config import OpConfig


@dataclass(frozen=True)
class Grid:
    """Values of `bits` bits, with a scale and a zero point for every `group` columns of a row."""

    bits: int
    group: int
    symmetric: bool

    @classmethod
    def of(cls, config: OpConfig, columns: int) -> Grid:
        """That of an op's options; a group wider than the row, or of size -1, is the row."""
        asked = int(config.get("weight", "group_size"))
        group = asked if 0 < asked < columns else columns + columns % 2  # an even number, to pack two in a byte
        return cls(int(config.get("weight", "bits")), group, config.get("weight", "scheme") == "sym")

    @property
    def low(self) -> int:
        """The least value; values are signed."""
        return -(1 << (self.bits - 1))

    @property
    def high(self) -> int:
        return (1 << (self.bits - 1)) - 1

    def padded(self, weight: torch.Tensor) -> torch.Tensor:
        """`(out, in)` to `(out, width)` with zeros, so that whole groups fill a row."""
        return torch.nn.functional.pad(weight, (0, -weight.shape[1] % self.group))


@dataclass(frozen=True)
class Rounded:
    """A padded weight on its grid: `(values - zero_point) * scale`."""

    values: torch.Tensor
    """(out, width) int8."""
    scale: torch.Tensor
    """(out, groups) float32."""
    zero_point: torch.Tensor | None
    """(out, groups) int8, or float32 where it need not be whole; None is 0."""


def ranged(weight: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """(scale `(out, groups) float32`, zero point `(out, groups) int8`) of the range of each group, 0 included."""
    kind = MappingType.SYMMETRIC_NO_CLIPPING_ERR if grid.symmetric else MappingType.ASYMMETRIC
    scale, zero_point = choose_qparams_affine(
        weight, kind, (1, grid.group), torch.int8, grid.low, grid.high, zero_point_dtype=torch.int8
    )
    return scale.view(len(weight), -1), zero_point.view(len(weight), -1)


def rounded(weight: torch.Tensor, grid: Grid) -> Rounded:
    """A padded weight `(out, width) float32`, each value at the nearest point of its group's grid (RTN)."""
    scale, zero_point = ranged(weight, grid)
    values = quantize_affine(weight, (1, grid.group), scale, zero_point, torch.int8, grid.low, grid.high)
    return Rounded(values, scale, None if grid.symmetric else zero_point)
