"""Rounding moves in front of what only moves values: the same bits, and integers in between."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from quantuner.engine.graphs import PER_TENSOR, QUANTIZE
from quantuner.engine.hoisting import hoist_rounding
from quantuner.space.config import FP32
from quantuner.space.samplers import initial
from tests.unit.engine.models import engine_of, images, seeded


class Between(nn.Module):
    """Two convolutions, something between them and the next, and a linear."""

    def __init__(self, between: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], channels: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 3, padding=1)
        self.between, self.c, self.head = between, nn.Conv2d(channels, 2, 3, padding=1), nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.c(self.between(self.a(x).relu(), self.b(x)))
        z: torch.Tensor = self.head(y.mean((2, 3)))
        return z


def quantized(model: nn.Module, **changes: object) -> GraphModule:
    engine = engine_of(model)
    engine.calibrate()
    return engine.quantized(initial(engine.space).having(changes))  # type: ignore[arg-type]


def hoisted(model: GraphModule) -> GraphModule:
    fixed = torch.export.export(model, (images(8, seed=3),)).module()
    assert isinstance(fixed, GraphModule)
    hoist_rounding(fixed)
    return fixed


def read_integers(model: GraphModule, target: object) -> bool:
    """Whether all inputs of the graph's only call of `target` are integers, or were integers just before."""
    (sources,) = [node.all_input_nodes for node in model.graph.nodes if node.target is target]
    return all(source.target is PER_TENSOR or source.meta["val"].dtype is torch.uint8 for source in sources)


aten = torch.ops.aten
CASES = {
    "a maximum": (lambda a, _: nn.functional.max_pool2d(a, 2, 2, 1), 4, aten.max_pool2d.default),
    "a concatenation": (lambda a, b: torch.cat([a, b], 1), 8, aten.cat.default),
    "both": (lambda a, b: nn.functional.max_pool2d(torch.cat([a, b], 1), 2), 8, aten.cat.default),
    "a change of shape": (lambda a, _: a.transpose(2, 3), 4, aten.transpose.int),
}


@pytest.mark.parametrize(("between", "channels", "target"), CASES.values(), ids=CASES)
def test_integers_flow_and_no_bit_changes(between: object, channels: int, target: object) -> None:
    model = quantized(seeded(lambda: Between(between, channels)))  # type: ignore[arg-type]
    moved, x = hoisted(model), images(8, seed=3)
    assert read_integers(moved, target)
    with torch.no_grad():
        assert torch.equal(moved(x), model(x))


@pytest.mark.parametrize(
    "between",
    [
        pytest.param(lambda a, b: a + b, id="a sum of rounded values is another than a rounded sum"),
        pytest.param(lambda a, _: nn.functional.avg_pool2d(a, 2), id="so is a mean"),
    ],
)
def test_what_computes_is_left_alone(between: object) -> None:
    model = quantized(seeded(lambda: Between(between, 4)))  # type: ignore[arg-type]
    before = [node.target for node in model.graph.nodes]
    moved = hoisted(model)
    assert [node.target for node in moved.graph.nodes].count(QUANTIZE) == before.count(QUANTIZE)


def test_what_is_read_in_fp32_too_is_left_alone() -> None:
    pooled: Callable[..., torch.Tensor] = lambda a, _: nn.functional.max_pool2d(a, 2)  # noqa: E731
    model = quantized(seeded(lambda: Between(pooled, 4)), c=FP32)
    assert not read_integers(hoisted(model), aten.max_pool2d.default)
