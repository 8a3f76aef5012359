"""Linears whose weight is stored in 8 or 4 bits, in place of the user's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from quantuner.engine.quantize import EPS, weight_observer
from quantuner.engine.sizes import Weight
from quantuner.engine.weight_only.grid import Grid, Rounded
from quantuner.engine.weight_only.stored import StoredWeight
from quantuner.space.capability import Mode
from quantuner.space.config import OpConfig

TYPE = "Linear"
Make = Callable[[str, OpConfig], StoredWeight]
"""Takes an op and its configuration; returns its stored weight."""
_decomposed = torch.ops.quantized_decomposed


class QuantizedLinear(nn.Module):
    """Computes in fp32 with a stored weight; `dynamic` rounds its input to the 256 levels of each batch's range."""

    def __init__(self, stored: StoredWeight, bias: torch.Tensor | None, *, quant_max: int, dynamic: bool) -> None:
        super().__init__()
        self.stored, self.dynamic, self.quant_max = stored, dynamic, quant_max
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @property
    def weight(self) -> torch.Tensor:
        """`(out, in)` float32, for code that reads it past the module."""
        value: torch.Tensor = self.stored()
        return value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.dynamic and x.numel():  # of no rows, as data may route them, there is no range
            return self._dynamic(x)
        return nn.functional.linear(x, self.stored(), self.bias)

    def _dynamic(self, x: torch.Tensor) -> torch.Tensor:
        """With the operators, and in the order, of a captured model after `scale_after_sums`."""
        bounds = (0, self.quant_max)
        scale, zero_point = _decomposed.choose_qparams.tensor(x, *bounds, EPS, torch.uint8)
        values = _decomposed.quantize_per_tensor.tensor(x, scale, zero_point, *bounds, torch.uint8)
        integers = _decomposed.dequantize_per_tensor.tensor(
            values, torch.ones_like(scale), zero_point, *bounds, torch.uint8
        )
        sums = nn.functional.linear(integers, self.stored.values.to(torch.float32))
        scaled: torch.Tensor = sums * (self.stored.scale.flatten() * scale.to(torch.float32))
        return scaled if self.bias is None else scaled + self.bias


def linears(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """(op name, module), each module once. A subclass may do anything else with its weight, and is left alone."""
    for name, module in model.named_modules():
        if type(module) is nn.Linear and module.weight.dtype is torch.float32:
            yield name, module


def quantized_linear(
    module: nn.Linear, config: OpConfig, stored: StoredWeight, *, reduce_range: bool = False
) -> QuantizedLinear:
    dynamic = config.mode is Mode.DYNAMIC
    return QuantizedLinear(stored, module.bias, quant_max=127 if reduce_range else 255, dynamic=dynamic)


def int8_weight(weight: torch.Tensor, config: OpConfig) -> StoredWeight:
    """A dynamic op's weight, on the grid of torchao's observer: int8, a scale for each output channel."""
    observer = weight_observer(config, 0)
    observer(weight)
    scale, _ = observer.calculate_qparams()
    grid = Grid(8, weight.shape[1], symmetric=True)
    values = (weight * (1.0 / scale.view(-1, 1))).round().clamp(grid.low, grid.high).to(torch.int8)
    return StoredWeight(Rounded(values, scale.view(-1, 1).expand(len(weight), 1).clone(), None), grid, weight.shape[1])


def places_of(model: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """Op name to where the model holds its module: (parent, attribute); more than one where it is shared."""
    names = {module: name for name, module in linears(model)}
    found: dict[str, list[tuple[nn.Module, str]]] = {name: [] for name in names.values()}
    for parent in model.modules():
        for attribute, child in parent._modules.items():  # named_children leaves out the second place of a module
            if child in names:
                found[names[child]].append((parent, attribute))
    return found


def weights_of_linears(model: nn.Module) -> tuple[Weight, ...]:
    """Those that are stored in few bits; one that several modules hold once."""
    holders: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            holders.setdefault(id(parameter), []).append(module)
    ops: dict[int, list[str]] = {}
    for name, module in linears(model):
        ops.setdefault(id(module.weight), []).append(name)
    elements = {id(module.weight): module.weight.numel() for _, module in linears(model)}
    return tuple(Weight(elements[one], tuple(names), len(holders[one]) > len(names)) for one, names in ops.items())


def quantized_copy(model: nn.Module, config: Mapping[str, OpConfig], make: Make, *, reduce_range: bool) -> nn.Module:
    """A copy of the fp32 model with the configured ops' weights stored, in evaluation mode."""
    copied = copy.deepcopy(model).eval()
    modules, places = dict(linears(copied)), places_of(copied)
    for name, module in modules.items():
        if name in config and not config[name].mode.is_precision:
            stored = copy.deepcopy(make(name, config[name]))
            quantized = quantized_linear(module, config[name], stored, reduce_range=reduce_range).eval()
            for parent, attribute in places[name]:
                setattr(parent, attribute, quantized)
    return copied
