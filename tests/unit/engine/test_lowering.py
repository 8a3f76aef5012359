"""The saved model in int8 kernels: close to what was measured, for every shape that it is called with."""

from pathlib import Path

import torch
from torch import nn
from torch._dynamo.utils import counters

import quantuner
from quantuner.space.capability import Mode
from quantuner.space.config import OpConfig
from quantuner.space.samplers import initial
from tests.unit.engine.models import ALL_PRECISIONS, engine_of, images, seeded


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 16, 3, padding=1), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.conv(x).relu().mean((2, 3)))
        return y


def test_ops_run_in_int8_kernels_and_outputs_stay(tmp_path: Path) -> None:
    engine = engine_of(seeded(Small))
    engine.calibrate()
    engine.save(initial(engine.space), tmp_path / "model")
    model = quantuner.load(tmp_path / "model")
    counters.clear()
    fast = model.compiled().eval()
    for count in (8, 3, 8):
        x = images(count, seed=3)
        with torch.no_grad():
            # Sums in int32 instead of float32: a value beside a rounding bound may land on the next of 256 levels.
            torch.testing.assert_close(fast(x), model(x), rtol=0, atol=0.02)
    found = counters["inductor"]
    assert (found["qconv_unary_lower_count"], found["qlinear_unary_lower_count"]) == (2, 2)  # once a shape


def test_an_op_in_bf16_is_compiled_beside_one_in_int8(tmp_path: Path) -> None:
    engine = engine_of(seeded(Small), precisions=ALL_PRECISIONS)
    engine.calibrate()
    config = initial(engine.space).having({"head": OpConfig(Mode.BF16)})
    engine.save(config, tmp_path / "model")
    model = quantuner.load(tmp_path / "model")
    counters.clear()
    x = images(8, seed=3)
    with torch.no_grad():
        # Neighbours in bf16 are a 256th apart, and outputs stay below 1.
        torch.testing.assert_close(model.compiled()(x), model(x), rtol=0, atol=0.02)
    found = counters["inductor"]
    assert (found["qconv_unary_lower_count"], found["qlinear_unary_lower_count"]) == (1, 0)
