"""Attention's projections are quantized under the names of their modules."""

from typing import Any

import pytest
import torch
from torch import nn

from quantuner.engine.capture import capture, quantizable_nodes
from quantuner.engine.operators import weight_of
from quantuner.space.samplers import initial
from tests.unit.engine.models import Attention, engine_of, seeded

TOKENS, OTHERS = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)), torch.ones(3, 7, 4)


class Cross(nn.Module):
    """Attention of one sequence to another: one parameter holds three projections, of which two are taken together."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.attention(x, other, other, need_weights=False)[0]
        return y


class Apart(nn.Module):
    """Queries, keys and values of different widths have parameters of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, kdim=3, vdim=2, batch_first=True)

    def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.attention(x, other[..., :3], other[..., :2], need_weights=False)[0]
        return y


class Adapted(nn.Linear):
    """A user's own kind of linear."""


class Adapter(nn.Linear):
    """A linear and what is learnt beside it, in two small matrices."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.down, self.up = nn.Parameter(torch.randn(4, 4) / 4), nn.Parameter(torch.randn(4, 4) / 4)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's name for it
        beside = nn.functional.linear(nn.functional.linear(input, self.down), self.up)
        y: torch.Tensor = super().forward(input) + beside
        return y


class OfTwo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Parameter(torch.randn(4, 4) / 4), nn.Parameter(torch.randn(4, 4) / 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = nn.functional.linear(nn.functional.linear(x, self.one), self.other)
        return y


OfTwo.__name__ = OfTwo.__qualname__ = "Linear"  # as users call their own


CASES: list[Any] = [
    pytest.param(lambda: nn.Sequential(Adapter()), (TOKENS,), ["0.linear", "0.linear_1", "0"], id="an adapter"),
    pytest.param(lambda: nn.Sequential(OfTwo()), (TOKENS,), ["0.one", "0.other"], id="another class called Linear"),
    pytest.param(
        lambda: nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)),
        (TOKENS,),
        ["0.self_attn.in_proj", "0.self_attn.out_proj", "0.linear1", "0.linear2"],
        id="a whole layer, whose fast path would hide them",
    ),
    pytest.param(Attention, (TOKENS,), ["attention.in_proj", "attention.out_proj", "head"], id="attention to itself"),
    pytest.param(
        Cross,
        (TOKENS, OTHERS),
        ["attention.in_proj_0", "attention.in_proj_1", "attention.out_proj"],
        id="parts of a parameter",
    ),
    pytest.param(
        Apart,
        (TOKENS, OTHERS),
        ["attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.out_proj"],
        id="parameters of their own",
    ),
    pytest.param(lambda: nn.Sequential(Adapted(4, 2)), (TOKENS,), ["0"], id="a subclass"),
]


@pytest.mark.parametrize(("make", "inputs", "names"), CASES)
def test_projections_are_named_and_quantized(make: Any, inputs: tuple[torch.Tensor, ...], names: list[str]) -> None:
    model = seeded(make)
    engine = engine_of(model, loader=[(inputs, torch.zeros(3))])
    assert [op.name for op in engine.captured.ops] == names
    torch.testing.assert_close(engine.captured.graph(*inputs), model(*inputs))
    engine.calibrate()
    config = initial(engine.space)
    quantized = engine.quantized(config)
    assert sum(t.dtype is torch.int8 for t in quantized.buffers()) == len(names)
    expected = quantized(*inputs)
    assert torch.equal(engine.switchable(config).model(config)(*inputs), expected)
    assert not torch.equal(expected, model(*inputs))
    torch.testing.assert_close(expected, model(*inputs), rtol=0, atol=0.1)


def test_a_part_of_a_parameter_is_a_parameter_of_its_own() -> None:
    model = seeded(Cross)
    graph = capture(model, (TOKENS, OTHERS)).graph
    weights = [weight_of(node) for _, _, node in quantizable_nodes(graph.graph)]
    parts: list[torch.Tensor] = [graph.get_parameter(str(w.target)) for w in weights if w is not None]
    whole = model.get_parameter("attention.in_proj_weight")
    assert torch.equal(torch.cat(parts[:2]), whole)
    assert [tuple(p.shape) for p in parts] == [(4, 4), (8, 4), (4, 4)]
