"""Scales behind sums: the same model but for last bits, whole sums, and a way back."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from quantuner.engine.capture import op_nodes
from quantuner.engine.quantize import quantize
from quantuner.engine.sums import scale_after_sums, scale_before_sums, sums_integers
from quantuner.space.samplers import initial
from tests.unit.engine.models import Learned, Net, Shared, Upsampling, Volumes, engine_of, images, rows, seeded

MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[..., Any]]] = {
    "a convolution and a linear": (Net, images),
    "a module that is called twice": (Shared, rows),
    "every type": (Volumes, rows),
    "transposed convolutions": (Upsampling, rows),
    "inputs that the model holds": (Learned, rows),
}
every_model = pytest.mark.parametrize(("make", "data"), MODELS.values(), ids=MODELS.keys())
approaches = pytest.mark.parametrize("approach", ["static", "dynamic"])


def converted(make: Callable[[], nn.Module], data: Callable[..., Any], approach: str) -> GraphModule:
    """As torchao makes it."""
    engine = engine_of(seeded(make), loader=[(data(), torch.zeros(8))], approach=approach)
    engine.calibrate()
    config = initial(engine.space)
    variant = engine._variants.own
    return quantize(engine.captured, variant.activations(0, engine.quantization), config)


def operands(model: GraphModule, inputs: torch.Tensor) -> list[torch.Tensor]:
    """Inputs and weights of all ops that sum integers, and their sums."""
    wanted = {node for _, type_, node in op_nodes(model.graph) if sums_integers(type_)}
    found: list[torch.Tensor] = []

    class See(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            value = super().run_node(n)
            if n in wanted:
                found.extend([self.env[n.args[0]], self.env[n.args[1]], value])  # type: ignore[index]
            return value

    See(model, garbage_collect_values=False).run(inputs)
    return found


@every_model
@approaches
def test_only_last_bits_change_there_and_back(
    make: Callable[[], nn.Module], data: Callable[..., Any], approach: str
) -> None:
    model = converted(make, data, approach)
    expected = model(data())
    for change in (scale_after_sums, scale_before_sums):
        code = model.code
        torch.testing.assert_close(change(model)(data()), expected, rtol=1e-4, atol=1e-5)
        assert model.code != code or (change is scale_before_sums and make is Upsampling)


@every_model
@approaches
def test_ops_add_up_whole_numbers(make: Callable[[], nn.Module], data: Callable[..., Any], approach: str) -> None:
    model = scale_after_sums(converted(make, data, approach))
    found = operands(model, data())
    assert found
    assert all(torch.equal(value, value.round()) for value in found)
    assert any(float(value.abs().max()) > 1 for value in found)


def test_the_way_back_finds_scales_and_biases_where_torchao_had_them() -> None:
    model = converted(Net, images, "static")
    assert called(scale_after_sums(model)) != (before := called(converted(Net, images, "static")))
    assert called(scale_before_sums(model)) == before


def called(model: GraphModule) -> list[str]:
    return sorted(str(node.target) for node in model.graph.nodes if node.op == "call_function")


class Scaled(nn.Module):
    """A layer scale: a factor of the user's behind an op (Touvron et al. 2021, arXiv:2103.17239)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.factor = nn.Linear(4, 3), nn.Parameter(torch.tensor([0.5, 2.0, 3.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(x) * self.factor
        return y


@approaches
def test_a_factor_of_the_users_is_not_taken_for_a_scale(approach: str) -> None:
    """Models that were trained keep torchao's form, and are compiled as well."""
    model = converted(Scaled, rows, approach)
    expected, before = model(rows()), called(model)
    assert called(scale_before_sums(model)) == before
    assert torch.equal(model(rows()), expected)
    for change in (scale_after_sums, scale_before_sums):
        torch.testing.assert_close(change(model)(rows()), expected, rtol=1e-4, atol=1e-5)
    assert called(model) == before


def test_an_addend_of_the_users_is_not_taken_for_a_bias() -> None:
    """It lies along the width of an image, or counts twice."""

    class Width(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.Linear(4, 4, bias=False)
            self.along, self.twice = nn.Parameter(torch.arange(4.0)), nn.Parameter(torch.arange(4.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.conv(x) + self.along
            z: torch.Tensor = torch.add(self.fc(y), self.twice, alpha=2)
            out: torch.Tensor = self.fc(z) + self.twice.view(4, 1)
            return out

    model = converted(Width, images, "static")
    expected = model(images())
    for change in (scale_after_sums, scale_before_sums):
        torch.testing.assert_close(change(model)(images()), expected, rtol=1e-4, atol=1e-5)


def test_sums_do_not_depend_on_their_order() -> None:
    """That of the channels, here: what torchao's own model computes does."""
    torch.manual_seed(0)
    order = torch.randperm(64)
    straight = nn.Sequential(nn.Linear(64, 8))
    shuffled = copy.deepcopy(straight)
    linear: Any = shuffled[0]
    linear.weight.data = linear.weight.data[:, order]
    data = torch.randn(32, 64)
    one = scale_after_sums(converted(lambda: straight, lambda *_: data, "static"))
    other = scale_after_sums(converted(lambda: shuffled, lambda *_: data[:, order], "static"))
    assert torch.equal(one(data), other(data[:, order]))
