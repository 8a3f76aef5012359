"""A linear whose weight is stored in int8 or in few bits."""

from __future__ import annotations

import torch
from torch import nn

from quantuner.engine.quantize import weight_observer
from quantuner.space.config import OpConfig

_decomposed = torch.ops.quantized_decomposed


class StoredInt8(nn.Module):
    """An int8 weight as torchao's convert stores it, to the bit. Called without arguments it gives the fp32 weight."""

    values: torch.Tensor
    """(out, in) int8."""
    scale: torch.Tensor
    """(out,) float32; where one is for all, `grid` has it."""
    zero_point: torch.Tensor
    """(out,) int64."""

    def __init__(self, weight: torch.Tensor, config: OpConfig) -> None:
        """Of an fp32 weight `(out, in)`, on the grid that the op's options name."""
        super().__init__()
        observer = weight_observer(config, axis=0)
        observer(weight)
        scale, zero_point = observer.calculate_qparams()
        self.grid: tuple[float, int] | None = None
        """(scale, zero point) of a weight with one grid for all channels."""
        if config.get("weight", "granularity") == "per_channel":
            self.register_buffer("scale", scale)
            self.register_buffer("zero_point", zero_point)
            values = _decomposed.quantize_per_channel(weight, scale, zero_point, 0, -128, 127, torch.int8)
        else:
            self.grid = float(scale), int(zero_point)
            values = _decomposed.quantize_per_tensor(weight, *self.grid, -128, 127, torch.int8)
        self.register_buffer("values", values)

    def forward(self) -> torch.Tensor:
        weight: torch.Tensor
        if self.grid is None:
            grids = self.scale, self.zero_point
            weight = _decomposed.dequantize_per_channel(self.values, *grids, 0, -128, 127, torch.int8)
        else:
            weight = _decomposed.dequantize_per_tensor(self.values, *self.grid, -128, 127, torch.int8)
        return weight


class Linear(nn.Module):
    """Takes the place of torch's, under its class name: so the op is called as the user's module is."""

    def __init__(self, stored: nn.Module, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.stored = stored
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's name for it
        """`(…, in)` to `(…, out)`."""
        return nn.functional.linear(input, self.stored(), self.bias)
