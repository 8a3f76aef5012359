"""Ops in bf16 and fp16: what they compute, how they are stored, and what is left of them in a saved model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from quantuner.engine.engine import Engine
from quantuner.engine.graphs import attribute, drop_unused
from quantuner.engine.precision import DTYPES
from quantuner.space.capability import Mode
from quantuner.space.config import FP32, OpConfig, TuneConfig
from quantuner.space.samplers import initial
from tests.unit.engine.models import ALL_PRECISIONS, Net, Shared, engine_of, images, seeded

HALVES = pytest.mark.parametrize("mode", list(DTYPES), ids=str)


def calibrated(make: Any, **more: Any) -> Engine:
    engine = engine_of(seeded(make), precisions=ALL_PRECISIONS, **more)
    engine.calibrate()
    return engine


def with_modes(engine: Engine, **modes: Mode) -> TuneConfig:
    """Every op in fp32, but for those named."""
    config = initial(engine.space)
    return config.having(dict.fromkeys(config, FP32)).having({name: OpConfig(mode) for name, mode in modes.items()})


@HALVES
def test_an_op_computes_in_the_precision_and_gives_fp32(mode: Mode) -> None:
    engine, dtype = calibrated(Net), DTYPES[mode]
    model: Any = seeded(Net)
    with torch.no_grad():
        hidden = model.stem(images()).relu().flatten(1)
        head: Any = model.head
        wanted = functional.linear(hidden.to(dtype), head.weight.to(dtype), head.bias.to(dtype)).float()
        got = engine.quantized(with_modes(engine, head=mode))(images())
        exact = model(images())
    assert got.dtype is torch.float32
    torch.testing.assert_close(got, wanted)  # a folded batch norm differs from one that is not in its last bits
    assert not torch.equal(got, exact)


@HALVES
def test_a_batch_norm_is_folded_into_the_weight_that_is_cast(mode: Mode) -> None:
    engine = calibrated(Net)
    model = engine.quantized(with_modes(engine, **{"stem.0": mode}))
    assert not any("batch_norm" in str(node.target) for node in model.graph.nodes)
    with torch.no_grad():
        torch.testing.assert_close(model(images()), seeded(Net)(images()), atol=0.1, rtol=0.05)


@HALVES
def test_a_weight_is_stored_in_the_precision_and_fp32_is_dropped(mode: Mode) -> None:
    engine = calibrated(Net)
    model = engine.quantized(with_modes(engine, head=mode))
    drop_unused(model)
    (linear,) = [node for node in model.graph.nodes if node.target is torch.ops.aten.linear.default]
    stored = [attribute(model, str(node.target)) for node in linear.all_input_nodes[1:]]
    assert [tensor.dtype for tensor in stored] == [DTYPES[mode]] * 2
    elements = {tensor.dtype: tensor.numel() for tensor in model.state_dict().values() if tensor.shape == (3, 16)}
    assert elements == {DTYPES[mode]: 48}


@HALVES
def test_calls_of_one_module_share_its_stored_weight(mode: Mode) -> None:
    engine = calibrated(Shared, loader=[(torch.randn(8, 4), torch.zeros(8))])
    model = engine.quantized(with_modes(engine, fc=mode))
    drop_unused(model)
    assert sorted(tuple(tensor.shape) for tensor in model.state_dict().values()) == [(4,), (4, 4)]


class Twins(nn.Module):
    """Two linears with one weight, on one input."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.a(x) - self.b(x)
        return y


def test_one_weight_may_be_kept_in_two_precisions() -> None:
    data = torch.randn(8, 4, generator=torch.Generator().manual_seed(3))
    engine = calibrated(Twins, loader=[(data, torch.zeros(8))])
    halves = engine.quantized(with_modes(engine, a=Mode.BF16, b=Mode.FP16))
    alike = engine.quantized(with_modes(engine, a=Mode.BF16, b=Mode.BF16))
    one = engine.quantized(with_modes(engine, b=Mode.BF16))
    with torch.no_grad():
        assert alike(data).abs().max() == 0
        assert halves(data).abs().max() > 0
        assert one(data).abs().max() > 0
    drop_unused(alike)
    assert len(alike.state_dict()) == 1
    assert sum(node.args[1] is torch.bfloat16 for node in alike.graph.nodes if len(node.args) > 1) == 1  # the input


@HALVES
def test_a_saved_model_loads_with_torch_alone_and_gives_the_trials_bits(mode: Mode, tmp_path: Path) -> None:
    engine = calibrated(Net)
    config = initial(engine.space).having({"head": OpConfig(mode)})
    trial = engine.trial(config)
    assert engine.save(config, tmp_path / "model") == trial.accuracy
    program = torch.export.load(tmp_path / "model" / "model.pt2")
    assert {tensor.dtype for tensor in program.state_dict.values()} | {
        tensor.dtype for tensor in program.constants.values() if isinstance(tensor, torch.Tensor)
    } >= {DTYPES[mode], torch.int8}
    with torch.no_grad():
        assert torch.equal(program.module()(images(5, 9)), engine.switchable(config).model(config)(images(5, 9)))


class Wide(nn.Module):
    """A linear whose weight is nearly all of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(256, 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(x)
        return y


@HALVES
def test_the_modelled_size_is_that_of_the_file(mode: Mode, tmp_path: Path) -> None:
    data = torch.randn(8, 256)
    engine = calibrated(Wide, loader=[(data, torch.zeros(8))], eval_func=lambda model: float(model(data).mean()))
    sizes = {}
    for name, config in (("half", with_modes(engine, fc=mode)), ("fp32", with_modes(engine))):
        engine.save(config, tmp_path / name)
        sizes[name] = (tmp_path / name / "model.pt2").stat().st_size
    saved = (engine.size(with_modes(engine)) - engine.size(with_modes(engine, fc=mode))) * 2**20
    assert saved == 2 * 256 * 256
    assert sizes["fp32"] - sizes["half"] == pytest.approx(saved, rel=0.05)
    assert engine.cost(with_modes(engine, fc=mode)) == 0.5


class Casting(nn.Module):
    """Casts of the user's own, of an input and of a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.gain = nn.Linear(4, 4), nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(x.to(torch.float32, copy=True) + x.to(torch.float64, non_blocking=True).float())
        kept, plain = self.gain.to(torch.bfloat16, copy=True), self.gain.to(torch.bfloat16)
        return y * (kept + plain + self.gain.to(dtype=torch.bfloat16, memory_format=torch.contiguous_format))


@pytest.mark.parametrize("approach", ["static", "dynamic", "weight_only", "qat"])
def test_casts_of_the_users_own_stay(approach: str, tmp_path: Path) -> None:
    data = torch.randn(8, 4, generator=torch.Generator().manual_seed(3))
    engine = engine_of(
        seeded(Casting), loader=[data], approach=approach, eval_func=lambda model: float(model(data).sum())
    )
    engine.train_with(lambda _: None, {})
    engine.calibrate()
    config = initial(engine.space)
    assert engine.trial(config).accuracy == engine.save(config, tmp_path / "model")
    with torch.no_grad():
        torch.testing.assert_close(engine.quantized(config)(data), seeded(Casting)(data), atol=0.5, rtol=0.1)


def test_summary_and_label_name_the_precision() -> None:
    engine = calibrated(Net)
    config = initial(engine.space).having({"head": OpConfig(Mode.BF16)})
    assert config.summary(engine.types)["defaults"]["Linear"] == "bf16"
    assert "bf16" in config.label(engine.types, 60)
    assert TuneConfig.from_plain(config.plain()) == config
