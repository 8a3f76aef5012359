"""Recurrent modules in int8: one op each, of any length, whose trial computes as the saved model does."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from quantuner.engine.engine import Engine
from quantuner.engine.probes.errors import activation_errors, output_errors, own_errors
from quantuner.engine.quantized import load
from quantuner.engine.quiet import quiet
from quantuner.space.capability import Mode
from quantuner.space.config import FP32, TuneConfig, default_config
from tests.unit.engine.models import engine_of


class Reader(nn.Module):
    """A recurrent module and a linear on its last step; `(N, T, 5)` to `(N, 3)`."""

    def __init__(self, make: Callable[..., Any], **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = make(5, 6, batch_first=True, **options)
        width = (options.get("proj_size") or 6) * (2 if options.get("bidirectional") else 1)
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.rnn(x)[0][:, -1])
        return y


def sequences(count: int, length: int) -> torch.Tensor:
    return torch.randn(count, length, 5, generator=torch.Generator().manual_seed(length))


def engine_for(model: nn.Module, approach: str = "dynamic") -> Engine:
    """Calibrated with batches of two lengths."""
    loader = [(sequences(3, 4), torch.zeros(3)), (sequences(3, 7), torch.zeros(3))]
    engine = engine_of(model, loader=loader, approach=approach, eval_func=lambda m: float(m(sequences(2, 9)).sum()))
    engine.calibrate()
    return engine


def default_of(engine: Engine) -> TuneConfig:
    return TuneConfig({capability.op.name: default_config(capability) for capability in engine.space})


def activation_errors_of(engine: Engine, config: TuneConfig) -> dict[str, float]:
    return activation_errors(engine.switchable(config), (sequences(2, 6),), config)


def own_errors_of(engine: Engine, config: TuneConfig) -> dict[str, float]:
    return own_errors(engine.switchable(config), [(sequences(2, 6),)], config)


def output_errors_of(engine: Engine, config: TuneConfig) -> dict[str, float]:
    fp32 = TuneConfig(dict.fromkeys(config, FP32))
    return output_errors(engine.switchable(config), [(sequences(2, 6),)], fp32, config)


MODELS = {
    "LSTM": lambda: Reader(nn.LSTM),
    "LSTM of two layers, both ways": lambda: Reader(nn.LSTM, num_layers=2, bidirectional=True),
    "LSTM with a projection": lambda: Reader(nn.LSTM, proj_size=4),
    "LSTM with a projection, without biases": lambda: Reader(nn.LSTM, proj_size=4, bias=False),
    "GRU": lambda: Reader(nn.GRU, num_layers=2),
    "GRU without biases": lambda: Reader(nn.GRU, bias=False),
    "RNN": lambda: Reader(nn.RNN),
    "RNN of ReLUs": lambda: Reader(nn.RNN, nonlinearity="relu"),
}
made = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())


@made
def test_a_trial_computes_as_the_saved_model_does_for_any_length(make: Callable[[], Reader], tmp_path: Path) -> None:
    engine = engine_for(make())
    config = default_of(engine)
    assert {name: op.mode for name, op in config.items()} == dict.fromkeys(("rnn", "head"), Mode.DYNAMIC)
    trial = engine.trial(config)
    assert engine.save(config, tmp_path / "model") == trial.accuracy
    saved, switched = load(tmp_path / "model"), engine.switchable(config).model(config)
    for count, length in ((2, 4), (1, 7), (5, 11)):
        x = sequences(count, length)
        with torch.no_grad():  # oneDNN computes an LSTM that may be trained by another kernel
            torch.testing.assert_close(saved(x), switched(x), rtol=0, atol=0)
            torch.testing.assert_close(saved(x), engine.task.model(x), rtol=0.1, atol=0.1)


@made
def test_its_matrices_are_stored_in_int8_and_all_are_counted(make: Callable[[], Reader]) -> None:
    model = make()
    engine = engine_for(model)
    (op,) = [one for one in engine.captured.ops if one.name == "rnn"]
    matrices = [p for p in model.rnn.parameters() if p.dim() == 2]
    assert op.type == type(model.rnn).__name__
    assert op.weight_elements == sum(m.numel() for m in matrices)
    assert op.flops > 0
    config = default_of(engine).having({"head": FP32})
    stored = [b for b in engine.quantized_model(config).buffers() if b.dtype == torch.int8]
    assert sorted(tuple(b.shape) for b in stored) == sorted(tuple(m.shape) for m in matrices)


def test_in_fp32_it_is_the_users_module() -> None:
    model = Reader(nn.GRU)
    engine = engine_for(model)
    config = TuneConfig(dict.fromkeys(("rnn", "head"), FP32))
    x = sequences(2, 6)
    torch.testing.assert_close(engine.quantized(config)(x), model(x), rtol=0, atol=0)


def test_each_batch_has_a_range_of_its_own() -> None:
    """A batch of a twentieth of the size is as exact; the range of the calibration data would leave it 13 levels."""
    model = Reader(nn.LSTM)
    engine = engine_for(model)
    config = default_of(engine).having({"head": FP32})
    quantized, x, zero = engine.quantized(config), sequences(2, 6) / 20, torch.zeros(2, 6, 5)
    with torch.no_grad():
        seen, wanted = quantized(x) - quantized(zero), model(x) - model(zero)
    assert float((seen - wanted).norm() / wanted.norm()) < 0.02


def test_a_static_search_leaves_it_in_fp32() -> None:
    (op,) = [one for one in engine_for(Reader(nn.LSTM), "static").space if one.op.name == "rnn"]
    assert [*op.modes] == [Mode.FP32]


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_what_was_captured_and_saved_is_compiled_right_in_the_same_process(
    kind: Callable[..., Any], tmp_path: Path
) -> None:
    """Capturing replaces what the operator's shapes are found by: the compiled model returned unwritten memory."""
    engine, x = engine_for(Reader(kind)), sequences(2, 6)
    engine.save(default_of(engine).having({"head": FP32}), tmp_path / "model")
    saved = load(tmp_path / "model")
    with quiet(), torch.no_grad():
        mine = torch.export.export(engine.task.model, (x,)).module()
        torch.testing.assert_close(saved.compiled()(x), saved(x), rtol=0, atol=0.02)
        (theirs,) = tree_leaves(torch._inductor.compile(mine, [x])(x))
        torch.testing.assert_close(theirs, engine.task.model(x))


def test_the_saved_model_needs_torch_alone(tmp_path: Path) -> None:
    engine = engine_for(Reader(nn.LSTM))
    engine.save(default_of(engine), tmp_path / "model")
    script = (
        "import sys, torch, torch.ao.quantization.fx._decomposed\n"
        f"model = torch.export.load({str(tmp_path / 'model' / 'model.pt2')!r}).module()\n"
        "assert not any(name.startswith(('torchao', 'quantuner')) for name in sys.modules)\n"
        "print(tuple(model(torch.ones(4, 8, 5)).shape))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "(4, 3)", done.stderr


@pytest.mark.parametrize("probe", [activation_errors_of, own_errors_of, output_errors_of])
def test_what_ranks_ops_takes_it_for_one(probe: Callable[[Engine, TuneConfig], dict[str, float]]) -> None:
    engine = engine_for(Reader(nn.LSTM, num_layers=2))
    errors = probe(engine, default_of(engine))
    assert set(errors) == {"rnn", "head"}
    assert all(0 < error < 0.1 for error in errors.values())
