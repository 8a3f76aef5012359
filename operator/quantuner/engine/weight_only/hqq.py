"""HQQ: scale and zero point of least robust error of the weight itself, without data; torchao's.

Source: Badri and Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models".
"""

from __future__ import annotations

import torch

from quantuner.engine.weight_only.grid import Grid, Rounded
from quantuner.engine.weight_only.primitives import hqq_affine, hqq_symmetric


def hqq(weight: torch.Tensor, grid: Grid) -> Rounded:
    """A padded weight `(out, width) float32` on its grid; an asymmetric grid's zero points are no whole numbers."""
    if grid.symmetric:
        values, scale = hqq_symmetric(weight, [1, grid.group], grid.low, grid.high)
        return Rounded(values.to(torch.int8), scale, None)
    values, scale, zero_point, _ = hqq_affine(
        weight, grid.bits, grid.group, compute_dtype=torch.float32, device=str(weight.device), raw_output=True
    )
    return Rounded((values.to(torch.int16) + grid.low).to(torch.int8), scale, zero_point + grid.low)
