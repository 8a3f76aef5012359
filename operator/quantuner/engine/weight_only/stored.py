"""A weight as it is stored: whole numbers of 8 or 4 bits, and how they are made into fp32 again."""

from __future__ import annotations

import torch

from quantuner.engine.weight_only.grid import Grid, Rounded

HALF = 8  # what makes a signed number of 4 bits an unsigned one


class StoredWeight(torch.nn.Module):
    """Called without arguments it gives the fp32 weight `(out, in)`, in operations of aten alone.

    The same operations run in a trial, in the saved program, and in a module whose weight was replaced: so they all
    compute the same bits.
    """

    values: torch.Tensor
    """(out, width) int8; of 4 bits (out, width / 2) uint8, the even column in the low half."""
    scale: torch.Tensor
    """(out, groups, 1) float32."""
    zero_point: torch.Tensor | None
    """(out, groups, 1) int8 or float32; None is 0."""
    input_scale: torch.Tensor | None
    """(in,) float32, by which columns were multiplied before they were rounded; None is 1."""

    def __init__(self, weight: Rounded, grid: Grid, columns: int, input_scale: torch.Tensor | None = None) -> None:
        super().__init__()
        self.bits, self.columns = grid.bits, columns
        self.register_buffer("values", _packed(weight.values) if grid.bits == 4 else weight.values)
        self.register_buffer("scale", weight.scale.unsqueeze(-1))
        self.register_buffer("zero_point", None if weight.zero_point is None else weight.zero_point.unsqueeze(-1))
        self.register_buffer("input_scale", input_scale)

    def forward(self) -> torch.Tensor:
        values = (_unpacked(self.values) if self.bits == 4 else self.values).to(torch.float32)
        grouped = values.view(*self.scale.shape[:2], -1)
        if self.zero_point is not None:
            grouped = grouped - self.zero_point.to(torch.float32)
        weight = (grouped * self.scale).view(len(values), -1)
        if weight.shape[1] > self.columns:
            weight = weight[:, : self.columns]
        return weight if self.input_scale is None else weight / self.input_scale

    @property
    def nbytes(self) -> int:
        """Of all that is stored."""
        return sum(buffer.nbytes for buffer in self.buffers())


def _packed(values: torch.Tensor) -> torch.Tensor:
    """`(out, width) int8` in [-8, 7] to `(out, width / 2) uint8`."""
    unsigned = (values + HALF).to(torch.uint8)
    return unsigned[:, 0::2] | (unsigned[:, 1::2] << 4)


def _unpacked(packed: torch.Tensor) -> torch.Tensor:
    """The other way."""
    unsigned = torch.stack([packed & 15, packed >> 4], -1).flatten(1)
    return unsigned.to(torch.int8) - HALF
