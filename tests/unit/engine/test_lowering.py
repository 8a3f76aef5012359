"""The saved model in int8 kernels: close to what was measured, for every shape that it is called with."""

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

import quantuner
from quantuner.engine import lowering
from quantuner.space.capability import Mode
from quantuner.space.config import FP32, OpConfig
from quantuner.space.samplers import initial
from tests.unit.engine.models import ALL_PRECISIONS, OVERFLOWS, Learned, engine_of, images, rows, seeded


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 16, 3, padding=1), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.conv(x).relu().mean((2, 3)))
        return y


def test_ops_run_in_int8_kernels_and_outputs_stay(tmp_path: Path) -> None:
    engine = engine_of(seeded(Small), reduce_range=OVERFLOWS)
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
    engine = engine_of(seeded(Small), reduce_range=OVERFLOWS, precisions=ALL_PRECISIONS)
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


class Pooled(nn.Module):
    """Takes a dict; pools what two convolutions give."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 16, 3, padding=1), nn.Conv2d(2, 16, 3, padding=1)
        self.last = nn.Conv2d(32, 4, 2)

    def forward(self, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        both = torch.cat([self.a(given["x"]).relu(), self.b(given["x"]).relu()], 1)
        return {"out": self.last(nn.functional.max_pool2d(both, 2))}


@pytest.mark.parametrize("max_autotune", [False, True])
def test_int8_flows_from_op_to_op(max_autotune: bool) -> None:
    engine = engine_of(seeded(Pooled), reduce_range=OVERFLOWS, loader=[({"x": images()}, torch.zeros(8))])
    engine.calibrate()
    model = engine.quantized_model(initial(engine.space))
    fast, x = model.compiled(max_autotune=max_autotune), images(8, seed=3)
    counters.clear()
    with torch.no_grad():
        for given in (x, x.transpose(2, 3).contiguous().transpose(2, 3)):  # the same in another layout
            torch.testing.assert_close(fast({"x": given})["out"], model({"x": given})["out"], rtol=0, atol=0.02)
    found = counters["inductor"]
    assert found["qmaxpool2d_matcher_count"] == 1  # compiled once
    assert found["qconv_unary_lower_count"] == (0 if max_autotune else 3)
    assert found["qlinear_unary_lower_count"] == (3 if max_autotune else 0)
    assert (found["cpp_templated_kernel_counter"] > 0) == max_autotune


def test_small_linears_are_computed_in_generated_kernels_where_asked() -> None:
    engine = engine_of(
        seeded(lambda: nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 4))), reduce_range=OVERFLOWS
    )
    engine.calibrate()
    model = engine.quantized_model(initial(engine.space))
    x = images(8, seed=3)
    for max_autotune in (False, True):
        counters.clear()
        with torch.no_grad():
            torch.testing.assert_close(model.compiled(max_autotune=max_autotune)(x), model(x), rtol=0, atol=0.02)
        assert counters["inductor"]["qlinear_unary_lower_count"] > 0
        assert (counters["inductor"]["cpp_templated_kernel_counter"] > 0) == max_autotune


@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_inputs_of_8_bits_are_refused_where_sums_overflow(approach: str) -> None:
    engine = engine_of(seeded(Small), approach=approach)
    engine.calibrate()
    with_vnni = {"architecture": "x86_64", "cpu_name": "Ice Lake", "avx512_vnni": True}
    without = {"architecture": "x86_64", "cpu_name": "AMD EPYC"}
    graph = engine.quantized(initial(engine.space))
    lowering._check_sums(graph, with_vnni)
    with pytest.raises(ValueError, match=r"\(AMD EPYC\) has no VNNI: .* or search anew with reduce_range"):
        lowering._check_sums(graph, without)
    model = engine.quantized_model(initial(engine.space))
    with pytest.raises(ValueError, match="has no VNNI") if OVERFLOWS else contextlib.nullcontext():
        model.compiled()


def test_inputs_of_7_bits_are_compiled_everywhere() -> None:
    engine = engine_of(seeded(Small), reduce_range=True)
    engine.calibrate()
    lowering._check_sums(engine.quantized(initial(engine.space)), {"architecture": "x86_64"})


@pytest.mark.parametrize("approach", ["static", "dynamic"])
def test_ops_of_what_the_model_holds_are_compiled(approach: str) -> None:
    engine = engine_of(seeded(Learned), approach=approach, reduce_range=OVERFLOWS, loader=[(rows(), torch.zeros(8))])
    engine.calibrate()
    model, x = engine.quantized_model(initial(engine.space)), rows(4, 3)
    with torch.no_grad():
        torch.testing.assert_close(model.compiled()(x), model(x), rtol=0, atol=0.02)


def test_what_the_model_holds_in_8_bits_is_refused_where_sums_overflow() -> None:
    engine = engine_of(seeded(Learned), loader=[(rows(), torch.zeros(8))])
    engine.calibrate()
    graph = engine.quantized(initial(engine.space).having({"key": FP32, "head": FP32}))
    with pytest.raises(ValueError, match="has no VNNI"):
        lowering._check_sums(graph, {"architecture": "x86_64"})


@pytest.mark.parametrize("offset", [-5.0, 0.0, 5.0])
def test_ranges_that_are_taken_of_the_input_reach_zero(offset: float) -> None:
    x = torch.linspace(-1, 1, 128).view(8, 16) + offset
    engine = engine_of(
        seeded(lambda: nn.Sequential(nn.Linear(16, 3))),
        approach="dynamic",
        reduce_range=OVERFLOWS,
        loader=[(x, torch.zeros(8))],
    )
    engine.calibrate()
    model = engine.quantized_model(initial(engine.space))
    with torch.no_grad():
        torch.testing.assert_close(model.compiled()(x), model(x), rtol=0, atol=0.02)


class Views(nn.Module):
    """Has no convolution, and views its images in an order that they have when channels come first."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(x.view(x.size(0), -1))
        return y


class Strided(nn.Module):
    """Reads what a convolution gives in the order in which it lies."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return y.as_strided((8, 32), (64, 1))


@pytest.mark.parametrize("make", [Views, Strided])
def test_images_keep_the_layout_that_a_model_reads(make: Callable[[], nn.Module]) -> None:
    engine = engine_of(seeded(make), reduce_range=OVERFLOWS)
    engine.calibrate()
    model, x = engine.quantized_model(initial(engine.space)), images(8, seed=3)
    with torch.no_grad():
        torch.testing.assert_close(model.compiled()(x), model(x), rtol=0, atol=0.02)


class Scaled(nn.Module):
    """Takes a number beside its images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 16, 3)

    def forward(self, x: torch.Tensor, scale: float) -> torch.Tensor:
        y: torch.Tensor = self.conv(x) * scale
        return y


class Named(nn.Module):
    """Takes a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 3)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        y: torch.Tensor = self.fc(batch["a"]) - 2 * self.fc(batch["b"])
        return y


def test_keys_of_a_dict_may_come_in_any_order() -> None:
    batch = {"a": torch.ones(2, 8), "b": torch.linspace(-1, 1, 16).view(2, 8)}
    engine = engine_of(seeded(Named), reduce_range=OVERFLOWS, loader=[((batch,), torch.zeros(2))])
    engine.calibrate()
    model = engine.quantized_model(initial(engine.space))
    fast = model.compiled()
    with torch.no_grad():
        for order in ("ab", "ba"):
            given = {key: batch[key] for key in order}
            torch.testing.assert_close(fast(given), model(given), rtol=0, atol=0.02)


def test_other_numbers_among_the_inputs_are_compiled_anew() -> None:
    engine = engine_of(
        seeded(Scaled), reduce_range=OVERFLOWS, loader=[((images(), 2.0), torch.zeros(8))], eval_func=lambda _: 0.0
    )
    engine.calibrate()
    fast = engine.quantized_model(initial(engine.space)).compiled()
    torch.testing.assert_close(fast(images(), 2.0), fast(x=images(), scale=2.0), rtol=0, atol=0)
    with pytest.raises((AssertionError, RuntimeError), match=r"2\.0"):  # the capture has fixed it
        fast(images(), 3.0)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ((), "takes 1 inputs by position, not 0"),
        ((images(), images()), "takes 1 inputs by position, not 2"),
        ((images().numpy(),), r"holds a numpy\.ndarray; give tensors \(torch\.as_tensor"),
    ],
)
def test_other_inputs_than_the_model_takes_are_refused(inputs: tuple[Any, ...], says: str) -> None:
    engine = engine_of(seeded(Small), reduce_range=OVERFLOWS)
    engine.calibrate()
    with pytest.raises(TypeError, match=says):
        engine.quantized_model(initial(engine.space)).compiled()(*inputs)


def test_threads_compile_one_at_a_time_and_a_shape_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling changes what all threads compile with."""
    engine = engine_of(seeded(Small), reduce_range=OVERFLOWS)
    engine.calibrate()
    models = [engine.quantized_model(initial(engine.space)).compiled() for _ in range(2)]
    both, inside, most, calls = threading.Barrier(4), 0, 0, 0

    def compiled(*_arguments: Any) -> Callable[..., Any]:
        nonlocal inside, most, calls
        inside, calls = inside + 1, calls + 1
        most = max(most, inside)
        for _ in range(1000):
            os.sched_yield()  # lets the others come in, where nothing holds them back
        inside -= 1
        return lambda leaves: leaves

    def call(model: lowering.Lowered) -> None:
        both.wait()
        model(images())

    monkeypatch.setattr(lowering, "_compiled", compiled)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(call, models * 2))
    assert (most, calls) == (1, 2)
