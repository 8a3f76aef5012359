"""Linears, inputs and options for the tests of weights in few bits."""

import torch
from torch import nn

from quantuner.engine.weight_only.grid import Grid
from quantuner.engine.weight_only.inputs import Inputs
from quantuner.space.capability import WEIGHT_ONLY, Mode
from quantuner.space.config import OpConfig


def options(bits: int = 4, group: int = 32, scheme: str = "sym", algorithm: str = "RTN") -> OpConfig:
    """An op's configuration, in the order of its capability."""
    chosen = {"bits": str(bits), "group_size": str(group), "scheme": scheme, "algorithm": algorithm}
    items = tuple(((attribute, item), chosen.get(item, values[0])) for (attribute, item), values in WEIGHT_ONLY.items())
    return OpConfig(Mode.WEIGHT_ONLY, items)


ALL = [
    options(bits, group, scheme, algorithm)
    for bits in (4, 8)
    for group in (32, 64, -1)
    for scheme in ("sym", "asym")
    for algorithm in WEIGHT_ONLY["weight", "algorithm"]
]


def weight(rows: int = 24, columns: int = 96, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def correlated(count: int = 256, columns: int = 96, seed: int = 1) -> torch.Tensor:
    """`(count, columns)`: inputs in which few directions carry most, and few channels are large, as in transformers."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(8, columns, generator=generator)
    rows = torch.randn(count, 8, generator=generator) @ directions + 0.1 * torch.randn(
        count, columns, generator=generator
    )
    rows[:, ::16] *= 10
    return rows


def inputs_seen(rows: torch.Tensor) -> Inputs:
    seen = Inputs.none_of(rows.shape[1])
    seen.see(rows)
    return seen


def output_error(stored: torch.Tensor, fp32: torch.Tensor, rows: torch.Tensor) -> float:
    """Mean squared error of a Linear's output."""
    return float((rows @ (stored - fp32).T).square().mean())


def grid_of(config: OpConfig, columns: int = 96) -> Grid:
    return Grid.of(config, columns)


class Two(nn.Module):
    """Two linears, the first called twice; widths that no group divides."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(45, 45), nn.Linear(45, 33)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, 45)` to `(N, 33)`, float32."""
        y: torch.Tensor = self.second(self.first(self.first(x).relu()).tanh())
        return y


def rows(count: int = 64, seed: int = 1) -> torch.Tensor:
    return correlated(count, 45, seed)
