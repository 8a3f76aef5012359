"""Int8 kernels are taken where they give fp32's bits, and nowhere else."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantuner.engine.sums import EXACT
from quantuner.engine.switch import kernels as module
from quantuner.engine.switch.flow import NOTHING, After
from quantuner.engine.switch.integers import InputGrid, IntegerWeight
from quantuner.engine.switch.kernels import Kernels, are_available
from quantuner.engine.switch.summed import Summed

needs_vnni = pytest.mark.skipif(not are_available(), reason="this processor adds up products of 8 bits in 16 bits")
_aten = torch.ops.aten


def summed(
    target: Any, values: torch.Tensor, grid: InputGrid, rest: Sequence[Any] = (), *, bias: bool = True, zero: int = 0
) -> Summed:
    """A call of an operator with an int8 weight."""
    graph = torch.fx.Graph()
    source, weight, shift = (graph.placeholder(name) for name in ("source", "weight", "shift"))
    node = graph.call_function(target, (source, weight, shift if bias else None, *rest))
    count = len(values)
    scale = torch.rand(count) * 0.01 + 1e-4
    integer = IntegerWeight(values, scale, torch.full((count,), zero), 0)
    type_ = "Linear" if target is _aten.linear.default else "Conv2d"
    return Summed.of(node, type_, integer, grid, {shift: torch.randn(count)})


def whole(*shape: int, low: int = -128, high: int = 128, dtype: torch.dtype = torch.int8) -> torch.Tensor:
    return torch.randint(low, high, shape, dtype=dtype)


def expected(op: Summed, integers: torch.Tensor) -> torch.Tensor:
    return op.in_fp32(integers.float() - op.grid.zero_point)


def computed(
    op: Summed, integers: torch.Tensor, kernels: Kernels | None = None, after: After = NOTHING
) -> torch.Tensor | None:
    value = integers.float().sub_(op.grid.zero_point).mul_(op.grid.scale)  # strides stay
    return (kernels or Kernels()).compute(op, value, lambda: integers, after)


@needs_vnni
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_convolutions_have_fp32s_bits_and_layout(data: st.DataObject) -> None:
    draw: Callable[..., Any] = data.draw
    torch.manual_seed(draw(st.integers(0, 2**31)))
    groups, outputs, inputs = (draw(st.integers(1, n)) for n in (2, 9, 9))
    kernel, stride, padding, dilation = (draw(st.integers(*b)) for b in ((1, 3), (1, 2), (0, 2), (1, 2)))
    grid = InputGrid(0.1, draw(st.sampled_from([0, 3, 127, 255])), 255)
    values = whole(outputs * groups, inputs, kernel, kernel).contiguous(memory_format=torch.channels_last)
    rest = ([stride] * 2, [padding] * 2, [dilation] * 2, groups)
    op = summed(_aten.conv2d.default, values, grid, rest, bias=draw(st.booleans()))
    integers = whole(draw(st.integers(1, 7)), inputs * groups, 9, 8, low=0, high=256, dtype=torch.uint8)
    if draw(st.booleans()):
        integers = integers.contiguous(memory_format=torch.channels_last)
    kernels = Kernels()
    for batch in (integers, whole(5, *integers.shape[1:], low=0, high=256, dtype=torch.uint8)):
        found, fp32 = computed(op, batch, kernels), expected(op, batch)
        one = fp32.is_contiguous() and fp32.is_contiguous(memory_format=torch.channels_last)
        unwritten = grid.zero_point and padding > dilation * (kernel - 1)
        assert bool(one or unwritten) is (found is None)
        if found is not None:
            assert torch.equal(found, fp32)
            assert found.stride() == fp32.stride() or len(fp32) == 1


@needs_vnni
@pytest.mark.parametrize("shape", [(3, 16), (1, 16), (2, 5, 16)])
@pytest.mark.parametrize("zero_point", [0, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_linears_have_fp32s_bits(shape: tuple[int, ...], zero_point: int, bias: bool) -> None:
    torch.manual_seed(0)
    op = summed(_aten.linear.default, whole(6, 16), InputGrid(0.1, zero_point, 255), bias=bias)
    integers = whole(*shape, low=0, high=256, dtype=torch.uint8)
    found = computed(op, integers)
    assert found is not None
    assert found.shape == expected(op, integers).shape
    assert torch.equal(found, expected(op, integers))


def single(value: float) -> float:
    """The nearest float32, as all scales are."""
    return float(torch.tensor(value, dtype=torch.float32))


@needs_vnni
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_a_kernel_computes_beyond_its_op_has_the_bits_of_one_step_after_the_other(data: st.DataObject) -> None:
    """Half of the scales are powers of two, for which half of the outputs lie between two integers."""
    draw: Callable[..., Any] = data.draw
    torch.manual_seed(draw(st.integers(0, 2**31)))
    outputs, inputs, size = (draw(st.sampled_from(sizes)) for sizes in ((3, 16, 33), (2, 8, 32), (2, 5)))
    grid = InputGrid(0.5, draw(st.sampled_from([0, 3])), 255)
    bias = draw(st.booleans())
    if draw(st.booleans()):
        weight, integers = (
            whole(outputs, inputs, 3, 3),
            whole(6, inputs, size, size, low=0, high=256, dtype=torch.uint8),
        )
        weight, integers = (one.contiguous(memory_format=torch.channels_last) for one in (weight, integers))
        op = summed(_aten.conv2d.default, weight, grid, ([1, 1], [1, 1], [1, 1], 1), bias=bias)
    else:
        integers = whole(6, inputs, low=0, high=256, dtype=torch.uint8)
        op = summed(_aten.linear.default, whole(outputs, inputs), grid, bias=bias)
    if draw(st.booleans()):
        op.weight.scale.fill_(2.0**-6)
    step = draw(st.sampled_from([2.0**-6, 2.0**-2, 0.37])) * draw(st.sampled_from([1, 30]))
    quant_max = draw(st.sampled_from([127, 128, 255]))
    kernels = Kernels()
    grids = (InputGrid(single(step), 0, quant_max), InputGrid(single(step / 3), 0, 255))
    for after in (After(True), *(After(True, grid) for grid in grids)):
        found = computed(op, integers, kernels, after)
        assert found is not None
        assert torch.equal(found, after.of(expected(op, integers)))


@needs_vnni
def test_no_weight_is_kept_in_fp32_beside_its_integers() -> None:
    op = summed(_aten.linear.default, whole(2, 4), InputGrid(0.1, 0, 255))
    integers = whole(3, 4, low=0, high=256, dtype=torch.uint8)
    assert computed(op, integers) is not None
    assert "fp32" not in vars(op.weight)
    assert torch.equal(op.weight.fp32, op.weight.values.float())


def is_taken(op: Summed, *shape: int) -> bool:
    return computed(op, torch.zeros(shape, dtype=torch.uint8)) is not None


@needs_vnni
def test_sums_that_fp32_may_not_hold_are_left_to_fp32() -> None:
    """127 · 255 · n is at most 2^24 for n up to 518."""
    for columns, taken in ((518, True), (519, False)):
        op = summed(_aten.linear.default, torch.full((2, columns), 127, dtype=torch.int8), InputGrid(0.1, 0, 255))
        assert (127 * 255 * columns <= EXACT) is taken
        assert is_taken(op, 1, columns) is taken


@needs_vnni
def test_what_has_no_kernel_is_left_to_fp32() -> None:
    linear, grid, values = _aten.linear.default, InputGrid(0.1, 0, 255), whole(2, 4)
    assert is_taken(summed(linear, values, grid), 1, 4)
    assert not is_taken(summed(linear, values, grid, zero=1), 1, 4)
    assert not is_taken(summed(linear, values, grid), 0, 4)
    assert not is_taken(summed(linear, values, grid), 4)
    assert not is_taken(summed(_aten.conv1d.default, whole(2, 4, 1), grid), 1, 4, 3)


@needs_vnni
@pytest.mark.parametrize(
    ("size", "padding", "dilation", "is_right"),
    [(3, 2, 1, True), (2, 1, 1, True), (2, 2, 1, False), (2, 2, 2, True), (1, 1, 1, False), (1, 0, 1, True)],
)
def test_where_an_output_is_made_of_padding_alone_a_zero_point_is_left_to_fp32(
    size: int, padding: int, dilation: int, is_right: bool
) -> None:
    """oneDNN reads memory there that it has not written: seen in 1 of 700 random convolutions, of such sizes alone."""
    rest = ([1, 1], [0, padding], [1, dilation], 1)
    for zero_point in (0, 3):
        op = summed(_aten.conv2d.default, whole(2, 4, 1, size), InputGrid(0.1, zero_point, 255), rest)
        assert is_taken(op, 2, 4, 5, 5) is (is_right or not zero_point)


@needs_vnni
def test_who_switches_onednn_off_gets_fp32() -> None:
    op = summed(_aten.linear.default, whole(2, 4), InputGrid(0.1, 0, 255))
    kernels, integers = Kernels(), torch.zeros(1, 4, dtype=torch.uint8)
    assert computed(op, integers, kernels) is not None
    torch._C._set_mkldnn_enabled(False)  # torch.backends.mkldnn.flags also sets what this build warns of
    try:
        assert computed(op, integers, kernels) is None
    finally:
        torch._C._set_mkldnn_enabled(True)


@needs_vnni
def test_a_bias_for_each_row_is_left_to_fp32() -> None:
    op = dataclasses.replace(summed(_aten.linear.default, whole(2, 4), InputGrid(0.1, 0, 255)), bias=torch.randn(3, 2))
    integers = whole(3, 4, low=0, high=256, dtype=torch.uint8)
    assert computed(op, integers) is None
    assert expected(op, integers).shape == (3, 2)


def test_without_vnni_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "are_available", lambda: False)
    assert not is_taken(summed(_aten.linear.default, whole(2, 4), InputGrid(0.1, 0, 255)), 1, 4)


@needs_vnni
def test_a_kernel_that_differs_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No kernel of a processor at hand differs: one that is off by a bit stands in for it."""
    run, runs = Kernels._run, []

    def off(*given: Any) -> torch.Tensor:
        runs.append(given)
        return run(*given).nextafter(torch.tensor(torch.inf))

    monkeypatch.setattr(Kernels, "_run", off)
    op = summed(_aten.linear.default, whole(2, 4), InputGrid(0.1, 0, 255))
    kernels, integers = Kernels(), whole(3, 4, low=0, high=256, dtype=torch.uint8)
    assert computed(op, integers, kernels) is None
    assert computed(op, integers, kernels) is None
    assert len(runs) == 1
    assert "int8 kernel differs from fp32" in caplog.text
