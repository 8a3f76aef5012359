"""HQQ: scale and zero point of least robust error of the weight itself, without data; torchao's.

Source: Badri and Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models".
"""

from __future__ import annotations

import torch

from quantuner.engine.weight_only.grid import Grid, Rounded
from quantuner.engine.weight_only.primitives import hqq_affine, hqq_symmetric


def hqq(weight: torch.Tensor, grid: Grid) -> Rounded:
    """A padded weight `(out, width) float32` on its grid; an asymmetric grid's zero points are no whole numbers."""
    groups = weight.unflatten(1, (-1, grid.group))
    units = _units(groups)
    even = (groups / units.unsqueeze(-1)).flatten(1)
    if grid.symmetric:
        values, scale = hqq_symmetric(even, [1, grid.group], grid.low, grid.high)
        return Rounded(values.to(torch.int8), scale * units, None)
    values, scale, zero_point, _ = hqq_affine(
        even, grid.bits, grid.group, compute_dtype=torch.float32, device=str(weight.device), raw_output=True
    )
    return Rounded((values.to(torch.int16) + grid.low).to(torch.int8), scale * units, zero_point + grid.low)


def _units(groups: torch.Tensor) -> torch.Tensor:
    """`(out, groups)`: each group's range, or its largest magnitude where that is all it has; 1 for zeros.

    torchao has a least scale, of 1 / 20,000 on an asymmetric grid, as fp16 needs it: many weights are smaller.
    """
    ranges = groups.amax(-1) - groups.amin(-1)
    units = torch.where(ranges > 0, ranges, groups.abs().amax(-1))
    return torch.where(units > 0, units, torch.ones_like(units))
