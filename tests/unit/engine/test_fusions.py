"""Every kind of convolution with a batch norm and an activation behind it: one op, computed as it is saved."""

from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from quantuner.engine.graphs import folded
from quantuner.space.config import FP32
from quantuner.space.samplers import initial
from tests.unit.engine.models import OVERFLOWS, engine_of, seeded

KINDS: dict[str, tuple[type[nn.Module], type[nn.Module], int]] = {
    "Conv1d": (nn.Conv1d, nn.BatchNorm1d, 1),
    "Conv2d": (nn.Conv2d, nn.BatchNorm2d, 2),
    "Conv3d": (nn.Conv3d, nn.BatchNorm3d, 3),
    "ConvTranspose1d": (nn.ConvTranspose1d, nn.BatchNorm1d, 1),
    "ConvTranspose2d": (nn.ConvTranspose2d, nn.BatchNorm2d, 2),
    "ConvTranspose3d": (nn.ConvTranspose3d, nn.BatchNorm3d, 3),
}


def block(kind: str, groups: int) -> nn.Module:
    convolution, norm, _ = KINDS[kind]
    made: Any = seeded(lambda: nn.Sequential(convolution(4, 6, 3, groups=groups, bias=False), norm(6), nn.ReLU()))
    with torch.no_grad():
        made[1].weight.copy_(torch.linspace(0.5, 2, 6))
        made[1].bias.copy_(torch.linspace(-1, 1, 6))
        made[1].running_mean.copy_(torch.linspace(1, -1, 6))
        made[1].running_var.copy_(torch.linspace(2, 0.5, 6))
    result: nn.Module = made
    return result


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_norm_is_folded_and_the_activation_is_the_users(kind: str, groups: int) -> None:
    model, x = block(kind, groups), torch.randn(8, 4, *[4] * KINDS[kind][2], generator=torch.Generator().manual_seed(0))
    engine = engine_of(model, loader=[(x, torch.zeros(8))])
    engine.calibrate()
    config = initial(engine.space)
    assert [(op.name, op.type) for op in engine.captured.ops] == [("0", kind)]
    quantized, exact = engine.quantized(config), model(x).detach()
    assert any("norm" in str(node.target) for node in quantized.graph.nodes) == (groups == 2 and "Transpose" in kind)
    with torch.no_grad():
        torch.testing.assert_close(folded(engine.captured.graph)(x), exact)
        assert torch.equal(engine.switchable(config).model(config)(x), quantized(x))
        assert 0 < (quantized(x) - exact).abs().max() < 0.02 * exact.abs().max()
        assert (quantized(x) >= 0).all()
        torch.testing.assert_close(engine.quantized(config.having({"0": FP32}))(x), exact)


def test_what_the_norm_is_folded_into_is_lowered_with_its_activation() -> None:
    model = block("Conv2d", 1)
    x = torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    engine = engine_of(model, reduce_range=OVERFLOWS, loader=[(x, torch.zeros(8))])
    engine.calibrate()
    quantized = engine.quantized_model(initial(engine.space))
    counters.clear()
    with torch.no_grad():
        torch.testing.assert_close(quantized.compiled()(x), quantized(x), rtol=0, atol=0.02)
    assert counters["inductor"]["qconv_unary_lower_count"] == 1
    assert counters["inductor"]["qconv_unary_matcher_nodes"] > counters["inductor"]["qconv_unary_matcher_count"]  # ReLU
