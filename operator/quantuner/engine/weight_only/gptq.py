"""GPTQ: each column's rounding error is made up for by the columns that are still to be rounded.

Source: Frantar et al. 2022 (arXiv:2210.17323), Algorithm 1, with the groups of section 4 and the damping of section
3.3. torchao's own runs on CUDA alone. Unlike the paper, an op sees its inputs in the fp32 model, not those that ops
rounded before it would give: so its weight depends on no other op's options.
"""

from __future__ import annotations

import torch

from quantuner.engine.weight_only.grid import Grid, Rounded, ranged
from quantuner.engine.weight_only.inputs import Inputs

BLOCK = 128  # columns whose errors are taken over to the rest at once; a multiple of every group size but a whole row's
DAMPING = 0.01  # of the mean of the Hessian's diagonal


def gptq(weight: torch.Tensor, inputs: Inputs, grid: Grid) -> Rounded:
    """A padded weight `(out, width) float32` on its grid; `inputs` are of the columns before padding."""
    left, factor = weight.clone(), _factor(inputs.products, weight.shape[1])
    values = torch.empty_like(weight, dtype=torch.int8)
    scales, zero_points = [], []
    for start in range(0, left.shape[1], BLOCK):
        block = left[:, start : start + BLOCK]  # a view
        errors = torch.empty_like(block)
        for i in range(block.shape[1]):
            if (start + i) % grid.group == 0:
                scale, zero_point = ranged(left[:, start + i : start + i + grid.group], grid)
                scales.append(scale)
                zero_points.append(zero_point)
                inverse, middle = scale.reciprocal(), zero_point.float()
            row = factor[start + i, start + i : start + block.shape[1]]
            column = block[:, i : i + 1]
            quantized = (column * inverse).round_().add_(middle).clamp_(grid.low, grid.high)
            values[:, start + i : start + i + 1] = quantized
            error = (column - (quantized - middle) * scale) / row[0]
            block[:, i:] -= error * row
            errors[:, i : i + 1] = error
        left[:, start + BLOCK :] -= errors @ factor[start : start + BLOCK, start + BLOCK :]
    return Rounded(values, torch.cat(scales, 1), None if grid.symmetric else torch.cat(zero_points, 1))


def _factor(products: torch.Tensor, width: int) -> torch.Tensor:
    """`(width, width) float32`, upper: the Cholesky factor of the inverse of the damped Hessian, Σ x xᵀ.

    A channel that calibration left at 0, or that only pads, has a Hessian of its own: its column is simply rounded.
    """
    hessian = torch.zeros(width, width, dtype=torch.float64, device=products.device)
    hessian[: len(products), : len(products)] = products.double()
    diagonal = hessian.diagonal()
    unseen = diagonal == 0
    mean = diagonal.sum() / (~unseen).sum().clamp(min=1)  # of what was seen, so that no unit of the inputs counts
    diagonal[unseen] = 1.0
    diagonal += DAMPING * mean
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True).float()
    return factor
