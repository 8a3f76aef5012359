"""Rounds tensors to the int8 grids that a configuration names, to the bit as torchao's converted models do.

Source: simulated quantization, Jacob et al. 2018 (arXiv:1712.05877), section 3; the order of operations is that of
torch.ao's quantized_decomposed library, quantize_per_tensor followed by dequantize_per_tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.fx import Node

from quantuner.engine.precision import DTYPES
from quantuner.engine.quantize import Activations, activation_observer, weight_observer
from quantuner.engine.switch.integers import InputGrid, IntegerWeight, integer_weight
from quantuner.engine.weight_only.weights import Weights
from quantuner.space.capability import Mode
from quantuner.space.config import OpConfig

Grid = tuple[float, int]
"""(scale, zero point)."""


@dataclass
class RoundedWeights:
    """What all that switch the same graph share."""

    tensors: dict[tuple[str, tuple[str, ...]], torch.Tensor] = field(default_factory=dict)
    """(op name, weight options) to the rounded weight; (a tensor of the graph, precision) to that tensor cast."""
    integers: dict[tuple[str, tuple[str, ...]], IntegerWeight] = field(default_factory=dict)
    """Of ops that sum integers."""


class Rounding:
    """The grids of one model's inputs and weights. Rounded weights are kept: they are the same in every batch."""

    def __init__(self, activations: Activations, weights: RoundedWeights, few_bits: Weights | None = None) -> None:
        self.activations = activations
        self._weights = weights
        self._few_bits = few_bits

    def grid(self, name: str, config: OpConfig) -> Grid | None:
        """Grid of an op's input; None where every batch has its own."""
        if config.mode is Mode.DYNAMIC:
            return None
        scheme, algorithm = config.get("activation", "scheme"), config.get("activation", "algorithm")
        return self.activations.qparams(name, scheme, algorithm)

    def activation(self, config: OpConfig, grid: Grid | None, value: torch.Tensor) -> torch.Tensor:
        """An op's input `(N, …) float32` rounded to its grid."""
        scale, zero_point = grid or self._of_batch(config, value)
        # Zero points are whole numbers, so that taking one out of the bounds instead of adding it changes no bit.
        low, high = -zero_point, self.activations.quant_max - zero_point
        # An integer that is made of NaN is 0, whose distance from the zero point is `low`.
        return value.mul(1.0 / scale).round_().clamp_(low, high).nan_to_num_(nan=low).mul_(scale)

    def _of_batch(self, config: OpConfig, value: torch.Tensor) -> Grid:
        observer = activation_observer(config.get("activation", "scheme"), self.activations.quant_max)
        observer.to(value.device)(value if value.numel() else value.new_zeros(1))  # where no row was routed to the op
        scale, zero_point = observer.calculate_qparams()
        return float(scale), int(zero_point)

    def weight(self, name: str, config: OpConfig, value: torch.Tensor, axis: int) -> torch.Tensor:
        """An op's weight, float32, rounded to its grid; channels in dimension `axis`."""
        if config.mode is Mode.WEIGHT_ONLY:
            if self._few_bits is None:
                raise RuntimeError(f"{name}: this model was given no weights in few bits")
            return self._few_bits.fp32(name, config)
        key = (name, _weight_options(config))
        if key not in self._weights.tensors:
            self._weights.tensors[key] = rounded_weight(config, value, axis)
        return self._weights.tensors[key]

    def input_grid(self, grid: Grid | None, config: OpConfig, value: torch.Tensor) -> InputGrid:
        """That of an op's input, or of this batch's where every batch has its own."""
        return InputGrid(*(grid or self._of_batch(config, value)), self.activations.quant_max)

    def integers(self, name: str, config: OpConfig, value: torch.Tensor, axis: int) -> IntegerWeight:
        """An op's weight, float32, as the integers it is rounded to; channels in dimension `axis`."""
        key = (name, _weight_options(config))
        if key not in self._weights.integers:
            self._weights.integers[key] = integer_weight(config, value, axis)
        return self._weights.integers[key]

    def cast(self, node: Node, mode: Mode, value: torch.Tensor) -> torch.Tensor:
        """An op's operand in the precision it computes in; of the model's own tensors the casts are kept."""
        if node.op != "get_attr":
            return value.to(DTYPES[mode])
        key = (str(node.target), (mode.value,))
        if key not in self._weights.tensors:
            self._weights.tensors[key] = value.to(DTYPES[mode])
        return self._weights.tensors[key]


def _weight_options(config: OpConfig) -> tuple[str, ...]:
    return tuple(option for (attribute, _), option in config.options if attribute == "weight")


def rounded_weight(config: OpConfig, value: torch.Tensor, axis: int) -> torch.Tensor:
    observer = weight_observer(config, axis).to(value.device)
    observer(value)
    scale, zero_point = observer.calculate_qparams()
    zero_point = zero_point.to(torch.int32)
    if config.get("weight", "granularity") == "per_channel":
        return torch.fake_quantize_per_channel_affine(value, scale, zero_point, axis, -128, 127)
    return torch.fake_quantize_per_tensor_affine(value, float(scale), int(zero_point), -128, 127)
