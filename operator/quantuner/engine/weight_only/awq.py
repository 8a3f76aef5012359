"""AWQ: columns that meet large activations are scaled up before rounding, and the result down again.

Source: Lin et al. 2023 (arXiv:2306.00978), equations 4 and 5: s = s_X^α with s_X the mean magnitude of each input
channel, and α of least squared output error. torchao's keeps every calibration input to measure that error; here it
comes from Σ x xᵀ. The inverse scale goes with the weight, which is in fp32 when it is multiplied, so the input is
left alone.
"""

from __future__ import annotations

import torch

from quantuner.engine.weight_only.grid import Grid, rounded
from quantuner.engine.weight_only.inputs import Inputs
from quantuner.engine.weight_only.stored import StoredWeight

STEPS = 20  # values of α in [0, 1), as the paper's grid
LEAST = 1e-4  # of a scale, so that a channel that calibration left at 0 can be divided by it


def awq(weight: torch.Tensor, inputs: Inputs, grid: Grid) -> StoredWeight:
    """The weight `(out, in) float32` with the scale of least error; α = 0 is plain rounding."""
    magnitudes = inputs.magnitudes / max(1, inputs.positions)
    candidates = (_scaled(weight, magnitudes.pow(step / STEPS).clamp_min(LEAST), grid) for step in range(STEPS))
    return min(candidates, key=lambda stored: _error(stored() - weight, inputs))


def _scaled(weight: torch.Tensor, scale: torch.Tensor, grid: Grid) -> StoredWeight:
    scale = scale / (scale.max() * scale.min()).sqrt()
    return StoredWeight(rounded(grid.padded(weight * scale), grid), grid, weight.shape[1], scale)


def _error(difference: torch.Tensor, inputs: Inputs) -> float:
    """Σ |(W' - W) x|² over the calibration data."""
    return float(((difference @ inputs.products) * difference).sum())
