"""Weight correction: an int8 weight has the mean and the deviation per channel that the fp32 one had."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule, Node

from quantuner.engine.capture import op_nodes
from quantuner.engine.graphs import attribute, path_of
from quantuner.engine.recipes.weight_correction import WeightCorrection, matched
from quantuner.engine.sums import scale_before_sums
from tests.unit.engine.models import Net, Shared, images, seeded
from tests.unit.engine.recipes.cases import applied, by_range, calibrated, normal, seeded_module, spelled, squared_error


def weights(model: GraphModule) -> dict[str, torch.Tensor]:
    """Op name to its weight as the model computes with it."""
    found = {}
    for name, _, node in op_nodes(scale_before_sums(model).graph):
        dequantize: Any = node.args[1]
        arguments = [attribute(model, path_of(a)) if isinstance(a, Node) else a for a in dequantize.args]
        found[name] = dequantize.target(*arguments)
    return found


STEPS = (0.8, 1.2, 2.0)
"""Mean of each channel's weights in steps of the int8 grid, which one large channel makes coarse for all."""


def coarse() -> nn.Module:
    """A convolution with skewed weights: most are rounded down, the few large ones stay, so mean and deviation move."""
    conv = nn.Conv2d(256, len(STEPS) + 1, 3)
    with torch.no_grad():
        for channel, steps in enumerate(STEPS):
            conv.weight[channel].exponential_().mul_(steps / 127.5)
        conv.weight[-1].uniform_(-1, 1)[0, 0, 0] = 1.0
    return nn.Sequential(conv)


def test_mean_and_deviation_of_each_channel_come_back() -> None:
    """To less than half of their errors: the corrected weight is rounded again, which leaves a chance error."""
    model = seeded_module(coarse)
    engine = calibrated(model, normal(4, 256, 5, 5), "dynamic")  # dynamic convolutions have one scale for all channels
    plain, corrected = (
        weights(engine.quantized(by_range(engine, **recipe)))["0"] for recipe in ({}, {"weight_correction": True})
    )
    exact = dict(model.named_parameters())["0.weight"].detach()
    for channel in range(len(STEPS)):
        before, after = (_errors(exact[channel], found[channel]) for found in (plain, corrected))
        assert before[0] > 2 * after[0]
        assert before[1] > 2 * after[1]


def _errors(exact: torch.Tensor, found: torch.Tensor) -> tuple[float, float]:
    """Of mean and deviation."""
    return abs(float(exact.mean() - found.mean())), abs(float(exact.std() - found.std()))


@pytest.mark.parametrize(
    ("model", "data"),
    [
        pytest.param(seeded(Net), images(64), id="batch norm, which quantizing folds into the weight"),
        pytest.param(seeded_module(Shared), normal(64, 4), id="called twice"),
        pytest.param(seeded_module(lambda: nn.Sequential(nn.Linear(1, 4))), normal(64, 1), id="channels of one weight"),
        pytest.param(
            seeded_module(lambda: nn.Sequential(nn.Conv2d(4, 4, 1, groups=4))), normal(8, 4, 5, 5), id="depthwise"
        ),
    ],
)
@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_a_weight_with_nothing_to_correct_stays_about_as_good(
    model: nn.Module, data: torch.Tensor, approach: str
) -> None:
    """Of few weights per channel the means are noise: the error may double, but must not change its order."""
    engine = calibrated(model, data, approach)
    plain, corrected = (engine.quantized(by_range(engine, **r)) for r in ({}, {"weight_correction": True}))
    assert squared_error(corrected, model, data) < 2 * squared_error(plain, model, data) + 1e-12


def test_a_channel_that_was_rounded_to_zero_stays_small() -> None:
    """It has no deviation to scale; dividing by its guard would blow it up to the whole range."""
    model = seeded_module(lambda: nn.Sequential(nn.Conv2d(8, 2, 3)))
    with torch.no_grad():
        model.get_parameter("0.weight")[0].mul_(0.001)
    engine = calibrated(model, normal(4, 8, 5, 5), "dynamic")
    found = weights(engine.quantized(by_range(engine, weight_correction=True)))["0"]
    assert float(found[0].abs().max()) == 0.0
    assert float(found[1].abs().max()) > 0.1


@pytest.mark.parametrize(
    ("exact", "quantized", "expected"),
    [
        pytest.param([[1.0, 3.0]], [[1.0, 3.0]], [[1.0, 3.0]], id="nothing to correct"),
        pytest.param([[1.0, 3.0]], [[2.0, 4.0]], [[0.0, 2.0]], id="mean 1 too high"),
        pytest.param([[1.0, 3.0]], [[0.0, 4.0]], [[1.5, 2.5]], id="deviation twice as large"),
        pytest.param([[1.0, 3.0]], [[2.0, 2.0]], [[1.0, 3.0]], id="one value, which has no deviation"),
        pytest.param([[2.0, 2.0]], [[1.0, 3.0]], [[2.0, 2.0]], id="fp32 without deviation"),
        pytest.param([[5.0]], [[4.0]], [[5.0]], id="one weight"),
        pytest.param([[1.0, 3.0], [1.0, 3.0]], [[2.0, 4.0], [1.0, 3.0]], [[0.0, 2.0], [1.0, 3.0]], id="each channel"),
        pytest.param([[[1.0], [3.0]]], [[[2.0], [4.0]]], [[[0.0], [2.0]]], id="over kernel positions"),
    ],
)
def test_corrections_by_hand(exact: Any, quantized: Any, expected: Any) -> None:
    found = matched(torch.tensor(exact), torch.tensor(quantized))
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_correction_knows_no_unit(scale: float) -> None:
    exact, quantized = normal(2, 50), normal(2, 50, seed=2)
    found, expected = matched(exact * scale, quantized * scale), matched(exact, quantized) * scale
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * scale)


def test_a_shared_weight_is_stored_once() -> None:
    engine = calibrated(seeded_module(Shared), normal(8, 4))
    model = engine.quantized(by_range(engine, weight_correction=True))
    nodes: list[Any] = [node for _, _, node in op_nodes(model.graph)]
    stored = {path_of(node.args[1].args[0]) for node in nodes}
    assert len(stored) == 1


def test_the_arguments_are_not_changed() -> None:
    engine = calibrated(seeded(Net), images(), "dynamic")
    origin, model = engine.captured.graph, engine.quantized(by_range(engine))
    before = spelled(origin), spelled(model)
    result = applied(WeightCorrection(), origin, model, lambda: iter(()))
    assert (spelled(origin), spelled(model)) == before
    assert spelled(result) != before[1]
