"""Fast bias correction: the mean error that quantization adds to each channel is taken out of the bias."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from quantuner.engine.capture import op_nodes
from quantuner.engine.engine import Engine
from quantuner.engine.quiet import quiet
from quantuner.engine.recipes.bias_correction import SAMPLES, FastBiasCorrection
from quantuner.engine.sums import scale_before_sums
from quantuner.space.config import FP32
from tests.unit.engine.models import Computed, Net, Routed, Shared, Unbatched, images, seeded
from tests.unit.engine.recipes.cases import applied, by_range, calibrated, normal, routed, seeded_module, spelled

FEW = normal(SAMPLES, 16) + 1.0  # a mean beside 0, which a rounded weight turns into a shift of the output
MAPS = normal(SAMPLES, 3, 6, 6) + 1.0


def mean_error(engine: Engine, data: torch.Tensor, **recipes: Any) -> torch.Tensor:
    """Per channel of the model's output, on the data that corrections are made from."""
    with torch.no_grad():
        error: torch.Tensor = engine.quantized(by_range(engine, **recipes))(data) - engine.task.model(data)
    return error.transpose(0, 1).flatten(1).mean(1).abs()


class BatchNormed(nn.Module):
    """The convolution's own mean is another one than the batch norm's, which quantizing folds into it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(self.conv(x))
        return y


class ComputedBias(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's name for it
        return nn.functional.linear(input, self.weight, self.bias * 2)


@pytest.mark.parametrize("approach", ["static", "dynamic"])
@pytest.mark.parametrize(
    ("model", "data"),
    [
        pytest.param(seeded_module(lambda: nn.Sequential(ComputedBias(16, 8))), FEW, id="a computed bias"),
        pytest.param(seeded_module(lambda: nn.Sequential(nn.Linear(16, 8))), FEW, id="linear"),
        pytest.param(seeded_module(lambda: nn.Sequential(nn.Linear(16, 8, bias=False))), FEW, id="without a bias"),
        pytest.param(
            seeded_module(lambda: nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8))), FEW, id="in line"
        ),
        pytest.param(seeded_module(lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))), MAPS, id="convolution"),
        pytest.param(seeded_module(lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"))), MAPS, id="padding"),
        pytest.param(seeded(BatchNormed), images(SAMPLES), id="batch norm"),
        pytest.param(seeded(Net), images(SAMPLES), id="a whole net"),
        pytest.param(seeded_module(Shared), normal(SAMPLES, 4), id="called twice"),
        pytest.param(seeded_module(Unbatched), normal(SAMPLES, 4), id="a convolution without a batch"),
    ],
)
def test_no_channel_has_a_mean_error_left(model: nn.Module, data: torch.Tensor, approach: str) -> None:
    """Of means of float32 sums a rounding is left: outputs are about 1, and the error before is above 1e-4."""
    engine = calibrated(model, data, approach)
    assert float(mean_error(engine, data).max()) > 1e-4
    assert float(mean_error(engine, data, fast_bias_correction=True).max()) < 2e-6


@pytest.mark.parametrize(
    ("rows", "corrected"),
    [
        pytest.param([False], ["first"], id="none"),
        pytest.param([False, True], ["first", "expert.0", "expert.1"], id="those of one batch"),
    ],
)
def test_an_op_to_which_no_row_is_routed_keeps_its_bias(rows: list[bool], corrected: list[str]) -> None:
    """The mean of nothing is NaN."""
    engine = calibrated(seeded_module(Routed), torch.cat([routed(True), routed(False)]))
    quantized = engine.quantized(by_range(engine))
    batches = [(routed(some),) for some in rows]
    found = applied(FastBiasCorrection(), engine.captured.graph, quantized, lambda: iter(batches))
    assert [said.removesuffix(" corrected") for said in biases(found) if said.endswith("corrected")] == corrected
    with torch.no_grad():
        assert found(routed(True)).isfinite().all()


def test_an_op_that_sees_rows_only_once_it_is_rounded_keeps_its_bias() -> None:
    """Rounding may route a row otherwise: of one of both outputs there is no mean."""
    engine = calibrated(seeded_module(Routed), torch.cat([routed(True), routed(False)]))
    quantized = engine.quantized(by_range(engine))
    with quiet():
        origin = copy.deepcopy(engine.captured.graph)
    (above,) = [node for node in origin.graph.nodes if node.target is torch.ops.aten.gt.Scalar]
    above.update_arg(1, 100.0)
    origin.recompile()
    found = applied(FastBiasCorrection(), origin, quantized, lambda: iter([(routed(True),)]))
    assert biases(found) == ["first corrected", "expert.0 as it was", "expert.1 as it was"]


def test_an_op_in_fp32_keeps_its_bias() -> None:
    data = images()
    engine = calibrated(seeded(Net), data)
    config = by_range(engine, fast_bias_correction=True).having({"head": FP32})
    assert biases(engine.quantized(config)) == ["stem.0 corrected", "head as it was"]


def test_an_op_whose_weight_is_computed_keeps_its_bias() -> None:
    engine = calibrated(seeded_module(Computed), normal(8, 4))
    model = engine.quantized(by_range(engine, fast_bias_correction=True))
    assert biases(model) == ["fc corrected", "linear_1 as it was"]


def biases(model: GraphModule) -> list[str]:
    found = []
    for name, _, node in op_nodes(scale_before_sums(model).graph):
        bias = node.args[2] if len(node.args) > 2 else None
        corrected = isinstance(bias, torch.fx.Node) and "_corrected_bias" in str(bias.target)
        found.append(f"{name} {'corrected' if corrected else 'as it was'}")
    return found


def test_the_arguments_are_not_changed() -> None:
    engine = calibrated(seeded(Net), images())
    origin, model = engine.captured.graph, engine.quantized(by_range(engine))
    before = spelled(origin), spelled(model)
    result = applied(FastBiasCorrection(), origin, model, engine.calibration_inputs(by_range(engine)))
    assert (spelled(origin), spelled(model)) == before
    assert spelled(result) != before[1]


def test_no_more_samples_than_it_says_are_read() -> None:
    """Samples behind the limit would change the means."""
    wild = 100 * normal(SAMPLES, 16, seed=2)
    model = seeded_module(lambda: nn.Sequential(nn.Linear(16, 8)))
    engine = calibrated(model, FEW)
    quantized = engine.quantized(by_range(engine))
    origin = engine.captured.graph
    few = applied(FastBiasCorrection(), origin, quantized, lambda: iter([(FEW,)]))
    more = applied(FastBiasCorrection(), origin, quantized, lambda: iter([(FEW,), (wild,)]))
    cut = applied(FastBiasCorrection(), origin, quantized, lambda: iter([(torch.cat([FEW, wild]),)]))
    assert spelled(few) == spelled(more) == spelled(cut)
