"""A compiled model writes to nothing that is the caller's or the model's own, whatever it adds to what it computes."""

import contextlib
import operator
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import Graph, Node
from torch.utils._pytree import tree_leaves

from quantuner.engine.overwriting import readers, sparing_what_is_read
from quantuner.engine.quiet import quiet
from quantuner.space.config import FP32
from quantuner.space.samplers import initial
from tests.unit.engine.models import OVERFLOWS, engine_of, seeded

WIDTH, SIDE = 16, 8


class Added(nn.Module):
    """Adds what is given, what it holds and what it computes to the outputs of Linears or convolutions."""

    def __init__(self, op: Callable[[], nn.Module], *shape: int) -> None:
        super().__init__()
        self.ops = nn.ModuleList(op() for _ in range(9))
        layout = torch.channels_last if len(shape) == 3 else torch.contiguous_format  # as convolutions compute
        values = torch.linspace(-1, 1, 8 * torch.Size(shape).numel()).view(8, *shape).contiguous(memory_format=layout)
        self.learned = nn.Parameter(values)
        self.register_buffer("held", -values)

    def forward(self, x: torch.Tensor, other: torch.Tensor) -> dict[str, torch.Tensor]:
        op = self.ops
        seen, kept, viewed = (op[i](x).relu() for i in range(3))
        again = op[3](kept.tanh()) + kept
        return {
            "input": op[4](seen.tanh()) + x,
            "other input": other + op[5](seen.sigmoid()),
            "parameter": op[6](seen.neg()) + self.learned,
            "buffer": op[7](seen.exp()) + self.held,
            "again": again,
            "kept": kept * 2,
            "view": op[8](viewed.cos()).flatten(1) + viewed.flatten(1),
            "viewed": viewed.flatten().sin(),
        }


class Residual(nn.Module):
    """Adds what it computes, which nobody reads again."""

    def __init__(self, op: Callable[[], nn.Module], *_: int) -> None:
        super().__init__()
        self.ops = nn.ModuleList(op() for _ in range(3))

    def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        first = self.ops[0](x).relu() * other
        y: torch.Tensor = self.ops[2](self.ops[1](first.tanh()).relu()) + first
        return y


def linear() -> nn.Module:
    return nn.Linear(WIDTH, WIDTH)


def conv() -> nn.Module:
    return nn.Conv2d(WIDTH, WIDTH, 3, padding=1)


CASES = {
    "Linear, static": (linear, (WIDTH,), "static", False),
    "Linear, dynamic": (linear, (WIDTH,), "dynamic", False),
    "Linear of sequences, static": (linear, (SIDE, WIDTH), "static", False),
    "Linear, fp32": (linear, (WIDTH,), "static", True),
    "Conv2d, static": (conv, (WIDTH, SIDE, SIDE), "static", False),
    "Conv2d, fp32": (conv, (WIDTH, SIDE, SIDE), "static", True),
}


def quantized(make: Any, op: Any, shape: tuple[int, ...], approach: str, is_fp32: bool) -> tuple[Any, tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(torch.randn(8, *shape, generator=generator) for _ in range(2))
    engine = engine_of(
        seeded(lambda: make(op, *shape)),
        approach=approach,
        reduce_range=OVERFLOWS,
        loader=[(inputs, torch.zeros(8))],
        eval_func=lambda _: 0.0,
    )
    engine.calibrate()
    config = initial(engine.space)
    return engine.quantized_model(config.having(dict.fromkeys(config, FP32)) if is_fp32 else config), inputs


@pytest.mark.parametrize("case", CASES)
def test_inputs_and_the_model_stay_as_they_are(case: str) -> None:
    model, inputs = quantized(Added, *CASES[case])
    given = tuple(value.clone() for value in inputs)
    held = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        expected = model(*inputs)
        fast = model.compiled()
        answers = [fast(*inputs) for _ in range(3)]
        kept = [{name: value.clone() for name, value in answer.items()} for answer in answers]
        fast(*(value + 1 for value in inputs))
    for answer, before in zip(answers, kept, strict=True):
        for name, value in answer.items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=0.05, msg=lambda said: f"{name}: {said}")  # noqa: B023
            assert torch.equal(value, answers[0][name]), name
            assert torch.equal(value, before[name]), f"{name} is what the next call wrote to"
    assert all(map(torch.equal, inputs, given))
    assert all(torch.equal(value, held[name]) for name, value in model.state_dict().items())
    outputs = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves(answers)}
    assert outputs.isdisjoint(value.untyped_storage().data_ptr() for value in inputs)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the memory that inductor writes to in place."""
    with quiet():
        from torch._inductor.graph import GraphLowering
    names: list[str] = []
    mark = GraphLowering.mark_buffer_mutated

    def marked(graph: Any, name: str) -> None:
        names.append(name)
        mark(graph, name)

    monkeypatch.setattr(GraphLowering, "mark_buffer_mutated", marked)
    with torch._inductor.config.patch(force_disable_caches=True):  # what is found in one is not lowered
        yield names


IN_PLACE = {"Linear, static": 1, "Linear, dynamic": 1, "Linear of sequences, static": 1, "Conv2d, fp32": 2}
"""How much memory is marked: of a convolution the image that it reads, too."""


@pytest.mark.parametrize("case", IN_PLACE)
def test_what_nobody_reads_again_is_added_to_in_place(case: str, written: list[str]) -> None:
    model, inputs = quantized(Residual, *CASES[case])
    with torch.no_grad():
        torch.testing.assert_close(model.compiled()(*inputs), model(*inputs), rtol=0, atol=0.05)
    assert len(written) == IN_PLACE[case]


def test_what_is_compiled_with_is_put_back_even_after_an_error() -> None:
    with quiet():
        from torch._inductor.fx_passes import mkldnn_fusion
    before = mkldnn_fusion._get_remaining_users
    with contextlib.suppress(KeyError), sparing_what_is_read():
        assert mkldnn_fusion._get_remaining_users is readers
        raise KeyError
    assert mkldnn_fusion._get_remaining_users is before


aten = torch.ops.aten


class Drawn:
    """A graph in which something is added to what is computed of `x`, until somebody asks who reads it."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.x = self.graph.placeholder("x")
        self.held = self.graph.get_attr("held")
        self.seen = self.call(aten.sin.default, self.x)

    def call(self, target: Any, *arguments: Any) -> Node:
        return self.graph.call_function(target, arguments)

    def readers(self, added: Node, source: Node) -> list[Node]:
        self.computed = self.call(aten.mm.default, source, self.graph.get_attr("weight"))
        self.sum = self.call(aten.add.Tensor, self.computed, added)
        return readers(added, self.computed)

    def read_later(self, node: Node) -> Node:
        """What reads a node in the end."""
        return self.call(aten.cos.default, node)


def test_the_addition_alone_reads_what_everything_else_is_computed_of() -> None:
    drawn = Drawn()
    view = drawn.call(aten.view.default, drawn.seen, [4, 4])
    assert drawn.readers(drawn.seen, drawn.call(aten.tanh.default, view)) == [drawn.sum]


@pytest.mark.parametrize("name", ["x", "held"])
def test_somebody_else_reads_what_is_given_or_held(name: str) -> None:
    drawn = Drawn()
    leaf = getattr(drawn, name)
    assert drawn.readers(drawn.call(aten.view.default, leaf, [4, 4]), drawn.seen)[1:] == [leaf]


@pytest.mark.parametrize("viewing", [aten.view.default, aten.permute.default, aten._unsafe_view.default])
def test_what_is_read_through_a_view_is_read(viewing: Any) -> None:
    drawn = Drawn()
    view, other = (drawn.call(viewing, drawn.seen, [1, 0]) for _ in range(2))
    later = drawn.read_later(drawn.call(aten.slice.Tensor, other))
    assert {*drawn.readers(view, drawn.call(aten.tanh.default, drawn.seen))} == {drawn.sum, later}


def test_a_part_of_several_values_is_seen_through_the_others() -> None:
    drawn = Drawn()
    parts = drawn.call(aten.split.Tensor, drawn.seen, 2)
    part = drawn.call(operator.getitem, parts, 0)
    later = drawn.read_later(drawn.call(operator.getitem, parts, 0))
    assert {*drawn.readers(part, drawn.x)} == {drawn.sum, later}


def test_an_op_reads_its_own_input_while_it_writes() -> None:
    drawn = Drawn()
    assert {*drawn.readers(drawn.seen, drawn.call(aten.slice.Tensor, drawn.seen))} == {drawn.computed, drawn.sum}
