"""Smooth quant: an outlier channel no longer ruins an int8 grid, and the fp32 function stays what it is."""

import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from quantuner.engine.capture import op_nodes
from quantuner.engine.graphs import attribute, path_of
from quantuner.engine.recipes.smooth_quant import ALPHAS, LEAST, SmoothQuant, alphas_between, smoothing_scale
from tests.unit.engine.models import Net, Routed, Shared, Unbatched, Volumes, images, seeded
from tests.unit.engine.recipes.cases import (
    applied,
    by_range,
    calibrated,
    captured,
    normal,
    once,
    routed,
    seeded_module,
    spelled,
    squared_error,
)

MUL = torch.ops.aten.mul.Tensor


def with_outlier(*shape: int) -> torch.Tensor:
    """The first channel is a hundred times as large as the others: they share 2 of the 255 steps of its grid."""
    data = normal(*shape)
    data[:, 0] *= 100
    return data


LINEAR = (lambda: nn.Sequential(nn.Linear(16, 8)), with_outlier(32, 16))
CONV = (lambda: nn.Sequential(nn.Conv2d(16, 8, 3, stride=2, padding=1)), with_outlier(32, 16, 6, 6))
NEEDY = [pytest.param(*LINEAR, id="linear"), pytest.param(*CONV, id="convolution")]


class TwoReaders(nn.Module):
    """Two linears and a convolution read one input."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 3), nn.Linear(6, 2, bias=False)
        self.conv = nn.Conv1d(4, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, 4, 6)` to `(N,)`."""
        y: torch.Tensor = self.left(x).sum((1, 2)) + self.right(x).sum((1, 2)) + self.conv(x).sum((1, 2))
        return y


class Tied(nn.Module):
    """Two linears with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.other.weight = self.one.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.other(self.one(x).relu())
        return y


def smoothed(model: nn.Module, data: torch.Tensor, alpha: float | str = 0.5) -> GraphModule:
    graph = captured(model, data).graph
    return applied(SmoothQuant(alpha), graph, graph, once(data))


def multiplications(model: GraphModule) -> list[Any]:
    return [node for node in model.graph.nodes if node.target is MUL]


# --- what it is for


@pytest.mark.parametrize(("make", "data"), NEEDY)
def test_an_outlier_channel_costs_a_fifth_of_the_error(make: Any, data: torch.Tensor) -> None:
    """Measured 7.0 for the linear and 10 for the convolution."""
    model = seeded_module(make)
    engine = calibrated(model, data)
    plain, better = (engine.quantized(by_range(engine, **recipe)) for recipe in ({}, {"smooth_quant": True}))
    assert squared_error(plain, model, data) > 5 * squared_error(better, model, data)


@pytest.mark.parametrize(("make", "data"), NEEDY)
def test_auto_has_no_more_error_than_any_fixed_alpha(make: Any, data: torch.Tensor) -> None:
    """Over the data that it chose on; a value on the edge of two steps may fall either way, which 1% allows for."""
    model = seeded_module(make)
    engine = calibrated(model, data)

    def error(alpha: float | str) -> float:
        config = by_range(engine, smooth_quant=True, smooth_quant_args={"alpha": alpha})
        return squared_error(engine.quantized(config), model, data)

    errors = [error(alpha) for alpha in ALPHAS]
    assert error("auto") <= 1.01 * min(errors)
    assert max(errors) > 2 * min(errors)  # so that the choice matters


def test_auto_chooses_for_each_group_of_readers() -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wild, self.tame = nn.Linear(16, 16), nn.Linear(16, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.tame(self.wild(x).tanh())
            return y

    model, data = seeded_module(Chain), with_outlier(32, 16)
    auto = smoothed(model, data, "auto")
    fixed = [smoothed(model, data, alpha) for alpha in ALPHAS]
    chosen = [
        [torch.equal(attribute(auto, path), attribute(one, path)) for one in fixed].index(True)
        for path in ("wild.weight", "tame.weight")
    ]
    assert chosen[0] != chosen[1]


def test_auto_compares_the_alphas_it_is_given() -> None:
    model, data = seeded_module(LINEAR[0]), LINEAR[1]
    graph = captured(model, data).graph
    bound = applied(SmoothQuant("auto", alphas=(0.1,)), graph, graph, once(data))
    assert spelled(bound) == spelled(smoothed(model, data, 0.1)) != spelled(smoothed(model, data, "auto"))


@pytest.mark.parametrize(
    ("arguments", "alphas"),
    [
        pytest.param({}, (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), id="all by themselves"),
        pytest.param({"alpha_min": 0.3, "alpha_max": 0.7, "alpha_step": 0.2}, (0.3, 0.5, 0.7), id="both ends"),
        pytest.param({"alpha_min": 0.3, "alpha_max": 0.6, "alpha_step": 0.2}, (0.3, 0.5), id="a step beyond the end"),
        pytest.param({"alpha_min": 0.4, "alpha_max": 0.4}, (0.4,), id="one"),
    ],
)
def test_the_alphas_between_two(arguments: dict[str, float], alphas: tuple[float, ...]) -> None:
    assert alphas_between(**arguments) == alphas


# --- what it leaves


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, "auto"])
@pytest.mark.parametrize(
    ("model", "data"),
    [
        pytest.param(seeded_module(LINEAR[0]), LINEAR[1], id="linear"),
        pytest.param(seeded_module(CONV[0]), CONV[1], id="convolution"),
        pytest.param(seeded(Net), images(), id="batch norm"),
        pytest.param(seeded_module(Volumes), normal(8, 4), id="every type"),
        pytest.param(seeded_module(TwoReaders), normal(8, 4, 6), id="several readers"),
        pytest.param(seeded_module(LINEAR[0]), normal(32, 16) * (torch.arange(16) > 0), id="a channel of zeros"),
        pytest.param(seeded_module(Unbatched), normal(8, 4), id="a convolution without a batch"),
        pytest.param(seeded_module(Unbatched), normal(4, 4), id="as many positions as channels"),
    ],
)
def test_the_fp32_function_stays(model: nn.Module, data: torch.Tensor, alpha: Any) -> None:
    """Up to float32: products are rounded anew, some units in the last place of the largest output."""
    with torch.no_grad():
        expected, found = model(data), smoothed(model, data, alpha)(data)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("make", "data"),
    [
        pytest.param(lambda: nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), normal(4, 4, 5, 5), id="grouped"),
        pytest.param(lambda: nn.Sequential(nn.Conv1d(4, 8, 3, groups=4)), normal(4, 4, 5), id="depthwise"),
        pytest.param(Shared, normal(4, 4), id="called twice"),
        pytest.param(Tied, normal(4, 4), id="tied"),
    ],
)
def test_what_cannot_be_smoothed_is_left_alone(make: Any, data: torch.Tensor) -> None:
    graph = captured(seeded_module(make), data).graph
    assert spelled(applied(SmoothQuant(0.5), graph, graph, once(data))) == spelled(graph)


@pytest.mark.parametrize("alpha", [0.5, "auto"])
def test_the_arguments_are_not_changed(alpha: Any) -> None:
    graph, other = (captured(seeded(Net), images()).graph for _ in range(2))
    before = spelled(graph)
    result = applied(SmoothQuant(alpha), other, graph, once(images()))
    assert spelled(graph) == spelled(other) == before != spelled(result)


def test_parameters_keep_their_names_so_that_they_can_be_trained() -> None:
    model = seeded(Net)
    names = [name for name, _ in smoothed(model, images()).named_parameters()]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())


@pytest.mark.parametrize("alpha", [0.5, "auto"])
def test_batches_of_which_an_op_sees_no_row_count_for_others(alpha: Any) -> None:
    graph = captured(seeded_module(Routed), routed(True)).graph
    some, none = (routed(True),), (routed(False),)
    found = applied(SmoothQuant(alpha, folding=False), graph, graph, lambda: iter([none, some, none]))
    only = applied(SmoothQuant(alpha, folding=False), graph, graph, lambda: iter([none, none]))
    assert [len(multiplications(model)) for model in (found, only)] == [3, 1]
    with torch.no_grad():
        torch.testing.assert_close(found(*some), graph(*some))
        torch.testing.assert_close(only(*some), graph(*some))


# --- how it is done


def test_readers_of_one_input_and_type_share_a_scale() -> None:
    model = smoothed(seeded_module(TwoReaders), normal(8, 4, 6))
    assert [sorted(user.target.name() for user in mul.users) for mul in multiplications(model)] == [
        ["aten::linear", "aten::linear"],
        ["aten::conv1d"],
    ]


def test_a_readers_weight_takes_what_its_input_gives() -> None:
    model = seeded_module(TwoReaders)
    found = smoothed(model, normal(8, 4, 6))
    readers: list[tuple[str, str, Any]] = list(op_nodes(found.graph))
    factors = {name: attribute(found, path_of(node.args[0].args[1])) for name, _, node in readers}
    for name in ("left", "right"):
        weight = getattr(model, name).weight.detach()
        torch.testing.assert_close(attribute(found, f"{name}.weight") * factors[name], weight)
    assert torch.equal(factors["left"], factors["right"])


@pytest.mark.parametrize(
    ("maxima", "weights", "alpha", "scale"),
    [
        pytest.param([4.0, 1.0], [[[1.0, -4.0]]], 0.5, [2.0, 0.5], id="square roots"),
        pytest.param([4.0, 1.0], [[[1.0, -4.0]]], 0.0, [1.0, 0.25], id="alpha 0 evens the weights"),
        pytest.param([4.0, 1.0], [[[1.0, -4.0]]], 1.0, [4.0, 1.0], id="alpha 1 evens the input"),
        pytest.param([4.0, 4.0], [[[1.0, 1.0]], [[4.0, 1.0], [0.0, -4.0]]], 0.5, [1.0, 1.0], id="largest of all ops"),
        pytest.param([4.0], [[[[1.0, -2.0, 0.5]]]], 0.0, [0.5], id="largest of all kernel positions"),
        pytest.param([0.0], [[[3.0]]], 0.5, [1.0], id="an input that is always 0"),
        pytest.param([1.0], [[[0.0]]], 0.0, [1 / LEAST], id="a weight of zeros"),
        pytest.param([1e-12], [[[1.0]]], 1.0, [LEAST], id="an input that is almost 0"),
    ],
)
def test_scales_by_hand(maxima: Any, weights: Any, alpha: float, scale: Any) -> None:
    found = smoothing_scale(torch.tensor(maxima), [torch.tensor(w) for w in weights], alpha)
    torch.testing.assert_close(found, torch.tensor(scale))


def test_maxima_are_those_of_all_batches() -> None:
    model, data = seeded_module(LINEAR[0]), LINEAR[1]
    graph = captured(model, data).graph
    whole = applied(SmoothQuant(0.5), graph, graph, once(data))
    parts = applied(SmoothQuant(0.5), graph, graph, lambda: iter([(data[:5],), (data[5:],)]))
    assert spelled(parts) == spelled(whole)


def test_with_a_fixed_alpha_batches_are_let_go_one_after_the_other() -> None:
    model, data = seeded_module(LINEAR[0]), LINEAR[1]
    graph = captured(model, data).graph
    given: list[weakref.ref[torch.Tensor]] = []

    def batches() -> Iterator[tuple[torch.Tensor]]:
        for part in data.split(8):
            batch = part.clone()
            assert all(one() is None for one in given[:-1])  # the last one is dropped when another is there
            given.append(weakref.ref(batch))
            yield (batch,)

    applied(SmoothQuant(0.5), graph, graph, batches)
    assert len(given) == 4


@pytest.mark.parametrize("alpha", [0.5, "auto"])
def test_inputs_in_a_dict(alpha: Any) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            y: torch.Tensor = self.one(batch["x"]) + self.other(batch["y"])
            return y

    data: Any = {"x": normal(8, 4), "y": 10 * normal(8, 4, seed=2)}
    found = smoothed(seeded_module(Named), data, alpha)
    assert [node.args[0].name for node in multiplications(found)] == ["batch_x", "batch_y"]
