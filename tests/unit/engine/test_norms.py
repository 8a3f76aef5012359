"""Norms behind shared convolutions stay norms: a model without quantized ops is the user's model."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from quantuner.engine.capture import capture
from quantuner.engine.graphs import folded
from quantuner.space.config import TuneConfig, default_config
from tests.unit.engine.models import engine_of, seeded


class SecondReader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        z: torch.Tensor = self.bn(y).relu() + y
        return z


class CalledTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn1, self.bn2 = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.bn2(self.conv(self.bn1(self.conv(x))))
        return y


class TiedWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.other.weight = self.one.weight
        self.bn1, self.bn2 = nn.BatchNorm2d(2), nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.bn2(self.other(self.bn1(self.one(x))))
        return y


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.bn(self.conv(x)).relu()
        return y


class ComputedWeight(Plain):
    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.conv)
        self.head = nn.Conv2d(2, 2, 1)  # one that can be quantized

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(super().forward(x))
        return y


class OfTheBatch(Plain):
    """As a norm without running statistics computes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return nn.functional.batch_norm(y, None, None, self.bn.weight, self.bn.bias, training=True)


@pytest.mark.parametrize(
    ("make", "norms"),
    [(SecondReader, 1), (CalledTwice, 2), (TiedWeight, 2), (Plain, 0), (ComputedWeight, 1), (OfTheBatch, 1)],
)
def test_a_norm_is_folded_only_where_nothing_else_notices(make: Callable[[], nn.Module], norms: int) -> None:
    model, x = seeded(make), torch.linspace(-1, 1, 64).view(2, 2, 4, 4)
    graph = folded(capture(model, (x,)).graph)
    torch.testing.assert_close(graph(x), model(x))
    assert sum(node.target is torch.ops.aten.batch_norm.default for node in graph.graph.nodes) == norms


class BehindReLU(nn.Module):
    """A norm that cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.bn(self.conv(x).relu())
        return y


def test_a_norm_that_stays_is_converted_as_it_is_and_without_a_search_for_patterns() -> None:
    """Each pattern that torchao looks for is traced by dynamo, which counts its graphs."""
    x = torch.linspace(-1, 1, 64).view(2, 2, 4, 4)
    engine = engine_of(seeded(BehindReLU), loader=[(x, torch.zeros(2))])
    engine.calibrate()
    config = TuneConfig({capability.op.name: default_config(capability) for capability in engine.space})
    traced = counters["stats"]["unique_graphs"]
    model = engine.quantized(config)
    assert counters["stats"]["unique_graphs"] == traced
    assert [str(n.target) for n in model.graph.nodes if "norm" in str(n.target)] == ["aten.batch_norm.default"]
    torch.testing.assert_close(model(x), engine.switchable(config).model(config)(x), rtol=0, atol=0)
