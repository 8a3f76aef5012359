"""Folding: smoothing leaves no multiplication in the graph where what comes before takes the factor.

Matrix: every producer and every node that a factor goes through; what must not be folded; the three settings of
`folding`; and for each that the trial's model, the converted one and the saved one have the same bits.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from quantuner.engine.quantized import load
from quantuner.engine.recipes.smooth_quant import SmoothQuant
from quantuner.space.config import FP32
from tests.unit.engine.models import Net, images, seeded
from tests.unit.engine.recipes.cases import (
    applied,
    by_range,
    calibrated,
    captured,
    normal,
    once,
    seeded_module,
    spelled,
    squared_error,
)

MUL = torch.ops.aten.mul.Tensor
LOUD = 100.0  # of the channel that the others cannot be heard beside


class Scaled(nn.Module):
    """A norm as language models write it: by its parts, with a gain and a shift."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)) + self.bias
        return y


class Gated(nn.Module):
    """The feed-forward part of a language model: down(silu(gate(x)) · up(x))."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down(nn.functional.silu(self.gate(x)) * self.up(x))
        return y


class Classifier(nn.Module):
    """A convolution, its mean over the image, and a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.conv(x).relu().mean((2, 3)))
        return y


class Residual(nn.Module):
    """What the linear reads is also added to what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(x)
        z: torch.Tensor = y + self.fc(y)
        return z


class Wedged(nn.Module):
    """Something between the norm and the linear."""

    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.between = between
        self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(self.between(self.norm(x)))
        return y


class Rows(nn.Module):
    """Convolutions without a batch: rows are positions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(16, 16, 3, padding=1), nn.Conv1d(16, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(L, 16)` to `(L, 8)`."""
        y: torch.Tensor = self.second(self.first(x.T).relu()).T
        return y


class Averaged(nn.Module):
    """The mean of a convolution's output over the batch: its positions are the linear's channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(16, 16, 1), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.conv(x).mean(0))
        return y


class TwiceRead(nn.Module):
    """A norm that is applied to two values: its gain has two readers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, 16)
        self.other = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(self.norm(x)) + self.other(self.norm(x + 1))
        return y


def loud(model: nn.Module, *parameters: str) -> nn.Module:
    """One channel of what the named parameters compute is a hundred times as large as the others."""
    for name in parameters:
        parameter = model.get_parameter(name)
        with torch.no_grad():
            parameter[0] *= LOUD
    return model


def made(make: Callable[[], nn.Module], *parameters: str) -> nn.Module:
    return loud(seeded_module(make), *parameters)


ROWS, SEQUENCES, MAPS = normal(32, 16), normal(8, 5, 16), normal(16, 16, 6, 6)
FOLDED = [
    pytest.param(
        made(lambda: nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 8)), "0.weight", "0.bias"), ROWS, 1, id="layer norm"
    ),
    pytest.param(
        made(lambda: nn.Sequential(nn.LayerNorm((5, 16)), nn.Linear(16, 8))), normal(4, 5, 16), 1, id="over two"
    ),
    pytest.param(made(lambda: nn.Sequential(nn.RMSNorm(16), nn.Linear(16, 8)), "0.weight"), ROWS, 1, id="RMS norm"),
    pytest.param(
        made(lambda: nn.Sequential(Scaled(16), nn.Linear(16, 8)), "0.weight"), normal(4, 5, 16), 1, id="norm by parts"
    ),
    pytest.param(
        made(lambda: nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3)), "0.weight"),
        MAPS,
        1,
        id="batch norm",
    ),
    pytest.param(
        made(
            lambda: nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3)), "1.weight"
        ),
        MAPS,
        1,
        id="batch norm that quantizing folds",
    ),
    pytest.param(
        made(lambda: nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 8)), "0.weight"), ROWS, 1, id="batch norm of rows"
    ),
    pytest.param(
        made(lambda: nn.Sequential(nn.GroupNorm(4, 16), nn.Conv2d(16, 8, 3)), "0.weight"), MAPS, 1, id="group norm"
    ),
    pytest.param(
        made(
            lambda: nn.Sequential(nn.InstanceNorm2d(16, affine=True), nn.LeakyReLU(), nn.Conv2d(16, 8, 3)), "0.weight"
        ),
        MAPS,
        1,
        id="instance norm",
    ),
    pytest.param(
        made(lambda: nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 8)), "0.weight", "0.bias"),
        ROWS,
        1,
        id="linear",
    ),
    pytest.param(
        made(lambda: nn.Sequential(nn.Linear(16, 16, bias=False), nn.Linear(16, 8)), "0.weight"), ROWS, 1, id="no bias"
    ),
    pytest.param(
        made(lambda: nn.Sequential(nn.Conv1d(16, 16, 3), nn.MaxPool1d(2), nn.Conv1d(16, 8, 1)), "0.weight", "0.bias"),
        normal(16, 16, 8),
        1,
        id="convolution and pooling",
    ),
    pytest.param(
        made(
            lambda: nn.Sequential(
                nn.Conv2d(16, 16, 3, padding="same"), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 8)
            ),
            "0.weight",
            "0.bias",
        ),
        MAPS,
        1,
        id="through pooling to a linear",
    ),
    pytest.param(made(Classifier, "conv.weight", "conv.bias"), normal(16, 3, 6, 6), 1, id="through a mean to a linear"),
    pytest.param(made(lambda: Wedged(lambda y: y.mean(1)), "norm.weight"), SEQUENCES, 1, id="through a mean of rows"),
    pytest.param(made(Rows, "first.weight", "first.bias"), ROWS, 1, id="convolutions without a batch"),
    pytest.param(made(Gated, "up.weight", "up.bias"), normal(32, 6), 1, id="gated"),
]
"""(model, data, how many groups fold)"""
OPAQUE = [
    pytest.param(made(Residual), ROWS, id="another reader"),
    pytest.param(made(lambda: Wedged(nn.functional.gelu)), ROWS, id="gelu"),
    pytest.param(made(lambda: Wedged(nn.functional.relu6)), ROWS, id="a rectifier with an end"),
    pytest.param(made(lambda: Wedged(lambda y: y * y)), ROWS, id="a square"),
    pytest.param(made(lambda: Wedged(lambda y: y + 1.0)), ROWS, id="a constant"),
    pytest.param(made(lambda: Wedged(lambda y: y.transpose(1, 2).contiguous())), normal(4, 16, 16), id="transposed"),
    pytest.param(made(TwiceRead), ROWS, id="a gain with two readers"),
    pytest.param(
        made(lambda: nn.Sequential(nn.LayerNorm(16, elementwise_affine=False), nn.Linear(16, 8))), ROWS, id="no gain"
    ),
    pytest.param(
        made(lambda: nn.Sequential(nn.LayerNorm(6), nn.Conv2d(16, 8, 3))), MAPS, id="a norm over other channels"
    ),
    pytest.param(
        made(lambda: nn.Sequential(nn.Conv1d(3, 16, 1), nn.Flatten(), nn.Linear(64, 4))),
        normal(8, 3, 4),
        id="flattened",
    ),
    pytest.param(made(lambda: Wedged(nn.MaxPool1d(3, 1, 1)), "norm.weight"), SEQUENCES, id="the largest of channels"),
    pytest.param(made(lambda: Wedged(nn.AvgPool1d(3, 1, 1)), "norm.weight"), SEQUENCES, id="the mean of channels"),
    pytest.param(
        made(lambda: nn.Sequential(nn.Linear(16, 32), nn.AdaptiveAvgPool1d(16), nn.Linear(16, 4))),
        SEQUENCES,
        id="another number of channels",
    ),
    pytest.param(made(Averaged), normal(8, 16, 16), id="a mean over the batch"),
]


def smoothed(model: nn.Module, data: torch.Tensor, folding: bool | None = None) -> tuple[GraphModule, GraphModule]:
    """(as captured, smoothed)."""
    graph = captured(model, data).graph
    return graph, applied(SmoothQuant(0.5, folding=folding), graph, graph, once(data))


def multiplications(model: GraphModule) -> int:
    return sum(node.target is MUL for node in model.graph.nodes)


def inserted(model: nn.Module, data: torch.Tensor, folding: bool | None = None) -> int:
    before, after = smoothed(model, data, folding)
    return multiplications(after) - multiplications(before)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Up to float32: products are rounded anew, some units in the last place of the largest output."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(("model", "data", "groups"), FOLDED)
def test_a_folded_factor_leaves_no_multiplication(model: nn.Module, data: torch.Tensor, groups: int) -> None:
    assert inserted(model, data, folding=False) - inserted(model, data) == groups


@pytest.mark.parametrize("folding", [None, True, False])
@pytest.mark.parametrize(("model", "data", "groups"), FOLDED)
def test_the_fp32_function_stays(model: nn.Module, data: torch.Tensor, groups: int, folding: bool | None) -> None:
    before, after = smoothed(model, data, folding)
    assert spelled(after) != spelled(before)
    with torch.no_grad():
        close(after(data), model(data))


@pytest.mark.parametrize(("model", "data"), OPAQUE)
def test_what_takes_no_factor_gets_a_multiplication(model: nn.Module, data: torch.Tensor) -> None:
    assert inserted(model, data) == inserted(model, data, folding=False) > 0
    with torch.no_grad():
        close(smoothed(model, data)[1](data), model(data))


@pytest.mark.parametrize("model", [made(Residual), made(TwiceRead)])
def test_folding_only_leaves_alone_what_cannot_be_folded(model: nn.Module) -> None:
    before, after = smoothed(model, ROWS, folding=True)
    assert spelled(after) == spelled(before)


@pytest.mark.parametrize(
    ("model", "data"),
    [
        pytest.param(*FOLDED[0].values[:2], id="layer norm"),
        pytest.param(*FOLDED[2].values[:2], id="RMS norm"),
        pytest.param(*FOLDED[4].values[:2], id="batch norm"),
        pytest.param(*FOLDED[9].values[:2], id="linear"),
    ],
)
def test_a_loud_channel_costs_a_quarter_of_the_error_without_a_multiplication(
    model: nn.Module, data: torch.Tensor
) -> None:
    """Of the op that reads it: an op that computes it stays in fp32."""
    engine = calibrated(model, data)
    before = dict.fromkeys(list(engine.types)[:-1], FP32)
    smooth = {"smooth_quant": True, "smooth_quant_args": {"alpha": 0.5, "folding": True}}
    plain, folded = (engine.quantized(by_range(engine, **recipe).having(before)) for recipe in ({}, smooth))
    assert multiplications(folded) == multiplications(plain)
    assert squared_error(plain, model, data) > 4 * squared_error(folded, model, data)


@pytest.mark.parametrize("approach", ["static", "dynamic"])
@pytest.mark.parametrize(("model", "data", "groups"), FOLDED)
def test_the_trial_has_the_bits_of_the_converted_model(
    model: nn.Module, data: torch.Tensor, groups: int, approach: str
) -> None:
    engine = calibrated(model, data, approach)
    config = by_range(engine, smooth_quant=True, smooth_quant_args={"alpha": "auto"})
    with torch.no_grad():
        assert torch.equal(engine.switchable(config).model(config)(data), engine.quantized(config)(data))


@pytest.mark.parametrize("folding", [None, True, False])
def test_the_trial_has_the_bits_of_the_artifact(folding: bool | None, tmp_path: Path) -> None:
    engine = calibrated(seeded(Net), images())
    arguments: Any = {"alpha": 0.5} if folding is None else {"alpha": 0.5, "folding": folding}
    config = by_range(engine, smooth_quant=True, smooth_quant_args=arguments)
    engine.save(config, tmp_path / "model")
    with torch.no_grad():
        trial = engine.switchable(config).model(config)(images())
        assert torch.equal(load(tmp_path / "model")(images()), trial)
