"""In-place operators of a captured graph become functional ones; a model that changes itself is refused."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from quantuner.api.errors import SearchError
from quantuner.engine.capture import capture
from quantuner.engine.functional import functional, is_mutating
from quantuner.engine.graphs import folded
from tests.unit.engine.models import seeded

Function = Callable[[torch.Tensor], torch.Tensor]


class Of(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def residual(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    z = y.relu_() - 1
    y += z
    return y * z


def before_and_after(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    z = y + 1  # of the value before
    y.mul_(3)
    return z * y


def through_a_view(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    z = y[:, 0]
    y.add_(1)  # z sees it
    return z + y[:, 1]


def a_part(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y[:, 0] = 0
    return y


def nothing(x: torch.Tensor) -> torch.Tensor:
    return x.relu() * 2


@pytest.mark.parametrize("function", [residual, before_and_after, through_a_view, a_part, nothing])
def test_values_stay_and_no_operator_writes(function: Function) -> None:
    x = torch.linspace(-1, 2, 6).view(2, 3)
    module, _ = functional(torch.export.export(Of(function), (torch.ones(2, 3),)))
    assert torch.equal(module(x.clone()), function(x.clone()))
    assert not any(is_mutating(node) for node in module.graph.nodes)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.relu(self.norm(self.conv(x)))
        return y


def test_batch_norms_beside_in_place_operators_are_still_folded_and_ops_keep_their_names() -> None:
    model, x = seeded(Normed), torch.linspace(-1, 1, 64).view(2, 2, 4, 4)
    captured = capture(model, (x,))
    assert [op.name for op in captured.ops] == ["conv"]
    graph = folded(captured.graph)
    assert not any("norm" in str(node.target) for node in graph.graph.nodes if node.op == "call_function")
    torch.testing.assert_close(graph(x), model(x))


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert isinstance(self.calls, torch.Tensor)
        self.calls.add_(1)
        y: torch.Tensor = self.fc(x) + self.calls
        return y


def test_a_model_that_changes_itself_is_refused_with_the_buffer() -> None:
    with pytest.raises(SearchError, match="the model writes to calls, a buffer or an input, when it is evaluated"):
        capture(Counting(), (torch.ones(2, 3),))
