"""Quantized models against a slow reference: quantize and dequantize, written out in plain torch.

Both compute in float32 on the dequantized values, so they differ by the order of sums and by the fused batch norm only,
some units in the last place of the largest term: 1e-5 of the output's magnitude. A value that rounds to the other level
would show as a hundred times more. The largest weight of a channel always lies exactly between two levels (127.5), so
there the last bit decides: the reference folds the batch norm with rsqrt, as torch does, and multiplies by the inverse
of the scale, as torch's operators are defined.
"""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from quantuner.engine.calibrate import Range, Ranges, calibrate
from quantuner.engine.capture import Captured, capture
from quantuner.engine.quantize import EPS, Activations, quantize
from quantuner.space.capability import Mode, capability_of
from quantuner.space.config import FP32, OpConfig, TuneConfig
from tests.unit.engine.models import Net, Shared, images, seeded

CALIBRATION, INPUT = images(8), images(5, seed=7)


class Calibrated(NamedTuple):
    model: nn.Module
    captured: Captured
    ranges: Ranges


@pytest.fixture(scope="module")
def net() -> Calibrated:
    model = seeded(Net)
    captured = capture(model, (CALIBRATION,))
    return Calibrated(model, captured, calibrate(captured, [CALIBRATION], [8])[8])


def configured(net: Calibrated, mode: Mode, scheme: str = "asym", algorithm: str = "minmax") -> TuneConfig:
    """Every op in one mode, scheme and algorithm."""
    chosen = {}
    for op in net.captured.ops:
        options = dict(OpConfig.first(mode, capability_of(op, "auto").modes[mode]).options)
        if mode is Mode.STATIC:
            options |= {("activation", "scheme"): scheme, ("activation", "algorithm"): algorithm}
        chosen[op.name] = OpConfig(mode, tuple(options.items()))
    return TuneConfig(chosen)


def run(net: Calibrated, config: TuneConfig, x: torch.Tensor = INPUT) -> torch.Tensor:
    y: torch.Tensor = quantize(net.captured, Activations(net.ranges), config)(x)
    return y.detach()


# --- the reference


def fake(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, low: int, high: int) -> torch.Tensor:
    return ((x * (1 / scale)).round() + zero).clamp(low, high).sub(zero) * scale


def activation(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor, scheme: str) -> torch.Tensor:
    """uint8: asymmetric from a range that holds 0, symmetric around the middle of [0, 255]."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    if scheme == "sym":
        scale = (torch.maximum(-low, high) / 127.5).clamp(min=EPS)
        return fake(x, scale, torch.tensor(127.0), 0, 255)
    scale = ((high - low) / 255).clamp(min=EPS)
    return fake(x, scale, (-low / scale).round().clamp(0, 255), 0, 255)


def weight(w: torch.Tensor, *, per_channel: bool) -> torch.Tensor:
    """int8, symmetric."""
    largest = w.abs().flatten(1).amax(1).view(-1, *[1] * (w.dim() - 1)) if per_channel else w.abs().max()
    return fake(w, (largest / 127.5).clamp(min=EPS), torch.tensor(0.0), -128, 127)


def reference(model: nn.Module, x: torch.Tensor, scheme: str, *, dynamic: bool = False) -> torch.Tensor:
    """Net with both ops quantized; the batch norm is folded into the convolution before its weight is."""
    conv, norm, head = (model.get_submodule(name) for name in ("stem.0", "stem.1", "head"))
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(head, nn.Linear)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # the bits of torch's own fusion
        folded, bias = conv.weight * factor.view(-1, 1, 1, 1), norm.bias - norm.running_mean * factor
        into_head = model.get_submodule("stem")(CALIBRATION).relu()
        seen = x if dynamic else CALIBRATION
        quantized = activation(x, seen.min(), seen.max(), scheme)
        y = nn.functional.conv2d(quantized, weight(folded, per_channel=not dynamic), bias).relu().flatten(1)
        seen = y if dynamic else into_head
        quantized = activation(y, seen.min(), seen.max(), scheme)
        return nn.functional.linear(quantized, weight(head.weight, per_channel=True), head.bias)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


# --- compared


@pytest.mark.parametrize("scheme", ["asym", "sym"])
def test_static_is_the_reference(net: Calibrated, scheme: str) -> None:
    found = run(net, configured(net, Mode.STATIC, scheme))
    close(found, reference(net.model, INPUT, scheme))
    assert (found - net.model(INPUT)).abs().max() > 1e-3  # it does quantize


@pytest.mark.parametrize("x", [INPUT, INPUT * 10], ids=["like the calibration's", "ten times as large"])
def test_dynamic_is_the_reference_with_the_range_of_each_batch(net: Calibrated, x: torch.Tensor) -> None:
    close(run(net, configured(net, Mode.DYNAMIC), x), reference(net.model, x, "asym", dynamic=True))


def test_fp32_is_the_users_model(net: Calibrated) -> None:
    config = TuneConfig(dict.fromkeys((op.name for op in net.captured.ops), FP32))
    close(run(net, config), net.model(INPUT).detach())


def test_one_op_in_fp32_leaves_the_other_quantized(net: Calibrated) -> None:
    whole = configured(net, Mode.STATIC)
    outputs = [run(net, whole), *(run(net, whole.having({op.name: FP32})) for op in net.captured.ops)]
    assert all(not torch.equal(a, b) for i, a in enumerate(outputs) for b in outputs[:i])


@pytest.mark.parametrize("mode", [Mode.STATIC, Mode.DYNAMIC])
def test_a_shared_module_is_quantized_at_every_call(mode: Mode) -> None:
    model, x = seeded(Shared), torch.linspace(-1, 1, 12).view(3, 4)
    captured = capture(model, (x,))
    shared = Calibrated(model, captured, calibrate(captured, [x], [3])[3])
    torch.testing.assert_close(run(shared, configured(shared, mode), x), model(x).detach(), rtol=0, atol=0.02)


def test_the_same_configuration_gives_the_same_bits(net: Calibrated) -> None:
    config = configured(net, Mode.STATIC, "asym", "kl")
    assert torch.equal(run(net, config), run(net, config))


def test_configurations_that_come_between_change_nothing(net: Calibrated) -> None:
    activations, config = Activations(net.ranges), configured(net, Mode.STATIC)
    before = quantize(net.captured, activations, config)(INPUT)
    for other in (configured(net, Mode.DYNAMIC), configured(net, Mode.STATIC, "sym", "kl")):
        quantize(net.captured, activations, other)(INPUT)
    assert torch.equal(quantize(net.captured, activations, config)(INPUT), before)


@pytest.mark.parametrize("mode", [Mode.STATIC, Mode.DYNAMIC])
@pytest.mark.parametrize("count", [1, 3, 64])
def test_any_batch_size_is_evaluated(net: Calibrated, mode: Mode, count: int) -> None:
    x = images(count, seed=3)
    model = quantize(net.captured, Activations(net.ranges), configured(net, mode))
    with torch.no_grad():
        whole, by_row = model(x), torch.cat([model(row[None]) for row in x])
    assert whole.shape == (count, 3)
    if mode is Mode.STATIC:  # a fixed range treats every row alike; sums may be taken in another order
        close(whole, by_row)


def test_weights_are_stored_as_int8(net: Calibrated) -> None:
    model = quantize(net.captured, Activations(net.ranges), configured(net, Mode.STATIC))
    stored = [tuple(t.shape) for t in model.buffers() if t.dtype is torch.int8]
    assert stored == [(4, 2, 3, 3), (3, 16)]


def test_it_takes_eval_and_train_as_evaluation_code_does(net: Calibrated) -> None:
    model = quantize(net.captured, Activations(net.ranges), configured(net, Mode.STATIC))
    before = model(INPUT)
    assert torch.equal(model.eval()(INPUT), before)
    assert torch.equal(model.train()(INPUT), before)


# --- ranges to scales


def seen(low: float, high: float, histogram: torch.Tensor) -> Activations:
    return Activations({"op": Range(torch.tensor(low), torch.tensor(high), histogram)})


FLAT = torch.full((2048,), 10.0)


@pytest.mark.parametrize(
    ("low", "high", "scheme", "scale", "zero"),
    [
        pytest.param(-1.0, 1.55, "asym", 0.01, 100, id="asymmetric"),
        pytest.param(0.0, 2.55, "asym", 0.01, 0, id="after a ReLU"),
        pytest.param(1.0, 2.55, "asym", 0.01, 0, id="a range above 0 is widened to hold it"),
        pytest.param(-2.55, -1.0, "asym", 0.01, 255, id="a range below 0 too"),
        pytest.param(-1.0, 1.275, "sym", 0.01, 127, id="symmetric around 127"),
        pytest.param(0.0, 0.0, "asym", EPS, 0, id="nothing but 0"),
    ],
)
def test_minmax_takes_the_range_seen(low: float, high: float, scheme: str, scale: float, zero: int) -> None:
    found_scale, found_zero = seen(low, high, FLAT).qparams("op", scheme, "minmax")
    assert found_scale == pytest.approx(scale, rel=1e-6)
    assert found_zero == zero


def test_kl_clips_what_is_rare() -> None:
    histogram = torch.zeros(2048)
    histogram[:1000], histogram[-1] = 1000, 1
    activations = seen(0.0, 10.0, histogram)
    clipped, whole = (activations.qparams("op", "asym", algorithm)[0] for algorithm in ("kl", "minmax"))
    assert clipped == pytest.approx(whole / 2, rel=0.1)


def test_who_has_a_quantized_model_may_change_it(net: Calibrated) -> None:
    before = {name: tensor.clone() for name, tensor in net.captured.graph.state_dict().items()}
    for config in (TuneConfig({op.name: FP32 for op in net.captured.ops}), configured(net, Mode.STATIC)):
        with torch.no_grad():
            for tensor in quantize(net.captured, Activations(net.ranges), config).state_dict().values():
                tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.captured.graph.state_dict().items())
