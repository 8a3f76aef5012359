"""The integers that inputs and weights are rounded to, to the bit as torchao's converted models store them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from quantuner.engine.quantize import weight_observer
from quantuner.space.config import OpConfig

_decomposed = torch.ops.quantized_decomposed
_BOUNDS = (-128, 127, torch.int8)
_WHOLE = 1.5 * 2**23
"""From here to 2^24 fp32 holds whole numbers only, and so it does for as much below: the lowest bits count them."""


@dataclass(frozen=True, eq=False)
class IntegerWeight:
    """A weight on its grid."""

    values: torch.Tensor
    """int8, in the shape of the weight."""
    scale: torch.Tensor
    """`(C,)` float32, or `()` where it is one for all channels."""
    zero_point: torch.Tensor
    """Like `scale`, int64."""
    axis: int

    @cached_property
    def fp32(self) -> torch.Tensor:
        """The integers less their zero points, in fp32."""
        fp32: torch.Tensor
        if not self.scale.dim():
            fp32 = _decomposed.dequantize_per_tensor(self.values, 1.0, int(self.zero_point), *_BOUNDS)
        else:
            ones = torch.ones_like(self.scale)
            fp32 = _decomposed.dequantize_per_channel(self.values, ones, self.zero_point, self.axis, *_BOUNDS)
        return fp32

    def forget_fp32(self) -> None:
        """Drops `fp32`, which takes four times the memory of the rest, until it is asked for again."""
        self.__dict__.pop("fp32", None)

    @cached_property
    def magnitude(self) -> int:
        """The largest sum of magnitudes of one output channel: what inputs of magnitude 1 can add up to."""
        sums = self.values.to(torch.int64).abs().movedim(self.axis, 0).flatten(1).sum(1)
        return int(sums.max())

    @cached_property
    def is_centred(self) -> bool:
        """Whether all zero points are 0."""
        return not bool(self.zero_point.any())


def integer_weight(config: OpConfig, value: torch.Tensor, axis: int) -> IntegerWeight:
    """An op's float32 weight rounded to the grid that its options name; channels in dimension `axis`."""
    observer = weight_observer(config, axis).to(value.device)
    observer(value)
    scale, zero_point = observer.calculate_qparams()
    if config.get("weight", "granularity") == "per_channel":
        values = _decomposed.quantize_per_channel(value, scale, zero_point, axis, *_BOUNDS)
        return IntegerWeight(values, scale, zero_point, axis)
    values = _decomposed.quantize_per_tensor(value, float(scale), int(zero_point), *_BOUNDS)
    return IntegerWeight(values, scale.reshape(()), zero_point.reshape(()), axis)


@dataclass(frozen=True)
class InputGrid:
    """Of an op's input, uint8."""

    scale: float
    """A float32: kernels, which take no other, divide by the same number."""
    zero_point: int
    quant_max: int
    """255, or 127 where the range is reduced."""

    @property
    def magnitude(self) -> int:
        """The largest of an integer less the zero point."""
        return max(self.zero_point, self.quant_max - self.zero_point)

    def of_what_is_not_negative(self) -> InputGrid:
        """A grid with the same integers less their zero point, which is 0, for values that are not negative or NaN."""
        return InputGrid(self.scale, 0, self.quant_max - self.zero_point)

    def bytes(self, value: torch.Tensor) -> torch.Tensor:
        """The integers of an op's input `(N, …) float32`, as uint8. What is made of NaN is 0."""
        low, high = -self.zero_point, self.quant_max - self.zero_point
        bounded = value.mul(1.0 / self.scale).clamp_(low, high)
        if self.zero_point:
            bounded.nan_to_num_(nan=low)
        # The sum is rounded as `round` does, and its lowest bits are the integer's: two passes over memory less.
        integers = bounded.add_(_WHOLE).view(torch.int32).to(torch.uint8)
        return integers.add_(self.zero_point) if self.zero_point else integers

    def fp32(self, value: torch.Tensor) -> torch.Tensor:
        """The same integers less their zero point, in fp32."""
        # Zero points are whole numbers, so that taking one out of the bounds instead of adding it changes no bit.
        low = -self.zero_point
        bounded = value.mul(1.0 / self.scale).round_().clamp_(low, low + self.quant_max)
        return bounded.nan_to_num_(nan=low)
