"""Transposed convolutions are compiled to what the saved model computes, here and where it is loaded."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from quantuner.engine.engine import Engine
from quantuner.engine.graphs import is_dequantize
from quantuner.engine.operators import operator_of
from quantuner.engine.quantized import load
from quantuner.engine.transposed import store_weights_in_fp32
from quantuner.space.config import FP32, TuneConfig
from quantuner.space.samplers import initial
from tests.unit.engine.models import OVERFLOWS, Upsampling, engine_of, rows, seeded


def signals(*sizes: int) -> torch.Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(0))


def engine_for(make: Callable[[], nn.Module], x: torch.Tensor, approach: str = "static") -> Engine:
    engine = engine_of(
        seeded(make),
        approach=approach,
        reduce_range=OVERFLOWS,
        loader=[(x, torch.zeros(len(x)))],
        eval_func=lambda model: float(model(x).mean()),
    )
    engine.calibrate()
    return engine


SQUARE = "2d, as many channels"
CASES: dict[str, tuple[Callable[[], nn.Module], torch.Tensor]] = {
    "1d": (lambda: nn.ConvTranspose1d(3, 4, 3, stride=2), signals(4, 3, 9)),
    "2d, more channels": (lambda: nn.ConvTranspose2d(3, 4, 2, 2), signals(4, 3, 8, 8)),
    SQUARE: (lambda: nn.ConvTranspose2d(8, 8, 3, 1, 1), signals(4, 8, 8, 8)),
    "2d, groups and output padding": (
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2),
        signals(2, 4, 5, 7),
    ),
    "2d, behind a convolution": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3, 1, 1, bias=False)),
        signals(4, 3, 8, 8),
    ),
    "3d": (lambda: nn.ConvTranspose3d(2, 3, 2, stride=2), signals(2, 2, 3, 4, 5)),
}


@pytest.mark.parametrize(("name", "approach"), [*((name, "static") for name in CASES), (SQUARE, "dynamic")])
def test_it_computes_compiled_what_it_does_saved(name: str, approach: str, tmp_path: Path) -> None:
    make, x = CASES[name]
    engine = engine_for(lambda: nn.Sequential(make()), x, approach)
    engine.save(initial(engine.space), tmp_path / "model")
    saved = load(tmp_path / "model")
    with torch.no_grad():
        torch.testing.assert_close(saved.compiled()(x), saved(x), rtol=0, atol=0.02)


class Scaled(nn.Module):
    """Multiplies what a transposed convolution gives, and adds to it, channel by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 4, 2, 2)
        self.scale, self.shift = (nn.Parameter(torch.linspace(1, end, 4).view(4, 1, 1)) for end in (5, -5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.up(x) * self.scale + self.shift
        return y


def test_in_fp32_nothing_is_folded_into_the_channels_of_its_input() -> None:
    x = signals(4, 4, 5, 5)
    engine = engine_for(Scaled, x)
    model = engine.quantized_model(TuneConfig({"up": FP32}))
    with torch.no_grad():
        torch.testing.assert_close(model.compiled()(x), model(x))


def test_it_computes_the_same_in_another_process(tmp_path: Path) -> None:
    engine = engine_for(Upsampling, rows())
    engine.save(initial(engine.space), tmp_path / "model")
    script = (
        "import torch, quantuner\n"
        f"model, x = quantuner.load({str(tmp_path / 'model')!r}), torch.linspace(-1, 1, 32).view(8, 4)\n"
        "with torch.no_grad():\n"
        "    torch.testing.assert_close(model.compiled()(x), model(x), rtol=0, atol=0.02)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_their_weights_alone_are_stored_in_fp32() -> None:
    make, x = CASES["2d, behind a convolution"]
    engine = engine_for(make, x)
    graph = engine.quantized(initial(engine.space))
    before = graph(x)
    store_weights_in_fp32(graph)
    torch.testing.assert_close(graph(x), before, rtol=0, atol=0)
    found = {
        operator.type: is_dequantize(node.args[1]) for node in graph.graph.nodes if (operator := operator_of(node))
    }
    assert found == {"Conv2d": True, "ConvTranspose2d": False}
