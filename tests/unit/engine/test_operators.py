"""Which operators are quantizable, and where their inputs and weights are."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from quantuner.engine.capture import Captured, capture, quantizable_nodes
from quantuner.engine.operators import channel_axis, inputs_of, range_names, weight_of
from tests.unit.engine.models import Attention, Looked, Product, Upsampling, ids, rows, seeded


def captured(make: Callable[[], nn.Module], x: torch.Tensor) -> Captured:
    return capture(seeded(make), (x,))


@pytest.mark.parametrize(
    ("make", "x", "ops"),
    [
        pytest.param(
            Upsampling,
            rows(),
            [("one", "ConvTranspose1d"), ("two", "ConvTranspose2d"), ("three", "ConvTranspose3d")],
            id="transposed convolutions",
        ),
        pytest.param(
            Product,
            rows(),
            [("query", "Linear"), ("key", "Linear"), ("matmul", "MatMul"), ("bmm", "MatMul")],
            id="products of activations, not of integers and not with a parameter",
        ),
        pytest.param(Looked, ids(), [("tokens", "Embedding"), ("fc", "Linear")], id="an embedding"),
    ],
)
def test_ops_have_types(make: Callable[[], nn.Module], x: torch.Tensor, ops: list[tuple[str, str]]) -> None:
    assert [(op.name, op.type) for op in captured(make, x).ops] == ops


def test_scales_lie_along_a_weights_output_channels() -> None:
    shapes = {
        name: (weight.meta["val"].shape, channel_axis(node))
        for make, x in ((Upsampling, rows()), (Looked, ids()))
        for name, _, node in quantizable_nodes(captured(make, x).graph.graph)
        if (weight := weight_of(node)) is not None
    }
    assert {name: shape[axis] for name, (shape, axis) in shapes.items()} == {
        "one": 6,
        "two": 3,  # of 6: two groups
        "three": 2,
        "tokens": 10,
        "fc": 3,
    }


def test_every_input_of_a_product_has_a_range() -> None:
    nodes = {name: node for name, _, node in quantizable_nodes(captured(Product, rows()).graph.graph)}
    assert range_names("matmul", nodes["matmul"]) == ("matmul", "matmul:1")
    assert len(inputs_of(nodes["matmul"])) == 2
    assert range_names("query", nodes["query"]) == ("query",)
    assert weight_of(nodes["matmul"]) is None


class Mixed(nn.Module):
    """A head in bf16 behind a body in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 3).to(torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.body(x).to(torch.bfloat16)
        scores = y @ y.T
        z: torch.Tensor = self.head(scores @ y).float()
        return z


def test_what_is_not_in_float32_is_left_as_it_is() -> None:
    assert [op.name for op in captured(Mixed, torch.ones(3, 4)).ops] == ["body"]


def test_an_embedding_has_no_input_that_is_rounded() -> None:
    nodes = {name: node for name, _, node in quantizable_nodes(captured(Looked, ids()).graph.graph)}
    assert range_names("tokens", nodes["tokens"]) == ()


@pytest.mark.parametrize(
    ("make", "x", "flops"),
    [
        pytest.param(
            Upsampling,
            rows(),
            # 4 positions and (4 in x 6/2 out x 3); 4 and (4 x 3 x 3 x 3); 4 and (1 x 2 x 2 x 2 x 2)
            {"one": 2 * 4 * 4 * 6 * 3, "two": 2 * 4 * 4 * 3 * 9, "three": 2 * 4 * 1 * 2 * 8},
            id="transposed convolutions: per input position",
        ),
        pytest.param(
            Product,
            rows(),
            {"query": 2 * 4 * 4, "key": 2 * 4 * 4, "matmul": 2 * 2 * 2 * 2, "bmm": 2 * 2 * 2 * 2},
            id="products: a sum per output",
        ),
        pytest.param(Looked, ids(), {"tokens": 0, "fc": 2 * 5 * 4 * 3}, id="looking up computes nothing"),
        pytest.param(
            Attention,
            torch.ones(8, 5, 4),
            {"attention.in_proj": 2 * 5 * 4 * 12, "attention.out_proj": 2 * 5 * 4 * 4, "head": 2 * 5 * 4 * 2},
            id="of one sample, wherever the batch dimension is",
        ),
    ],
)
def test_floating_point_operations(make: Callable[[], nn.Module], x: torch.Tensor, flops: dict[str, int]) -> None:
    assert {op.name: op.flops for op in captured(make, x).ops} == flops
