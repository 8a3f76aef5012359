"""Integers of inputs, whatever the input holds."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantuner.engine.switch.integers import InputGrid

_decomposed = torch.ops.quantized_decomposed
NEIGHBOURS = torch.tensor([-math.inf, 0.0, math.inf])


def values(scale: float) -> torch.Tensor:
    """Multiples of half a step and their neighbours, numbers far outside of the range, and what is no number."""
    halves = torch.arange(-700, 700) * (scale / 2)
    beside = [halves.nextafter(to) for to in NEIGHBOURS]
    special = torch.tensor([math.nan, math.inf, -math.inf, 1e30, -1e30, 2.0**31, -0.0])
    return torch.cat([*beside, special, special.repeat(40)])


@settings(max_examples=60, deadline=None)
@given(st.floats(2.0**-20, 2.0**10, width=32), st.integers(0, 255), st.sampled_from([127, 255]))
def test_they_are_those_of_torchs_own_rounding(scale: float, zero_point: int, quant_max: int) -> None:
    grid = InputGrid(scale, min(zero_point, quant_max), quant_max)
    given_ = values(scale)
    expected = _decomposed.quantize_per_tensor(given_, scale, grid.zero_point, 0, quant_max, torch.uint8)
    assert torch.equal(grid.bytes(given_), expected)
    assert torch.equal(grid.fp32(given_), expected.float() - grid.zero_point)


def test_they_lie_in_memory_as_the_input_does() -> None:
    image = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert InputGrid(0.1, 3, 255).bytes(image).stride() == image.stride()


@pytest.mark.parametrize(("zero_point", "quant_max"), [(0, 255), (127, 255), (128, 255), (64, 127), (255, 255)])
def test_what_is_not_negative_has_the_same_ones_without_a_zero_point(zero_point: int, quant_max: int) -> None:
    grid = InputGrid(0.37, zero_point, quant_max)
    other = grid.of_what_is_not_negative()
    assert other.zero_point == 0
    positive = values(0.37).abs()
    positive = positive[~positive.isnan()]
    assert torch.equal(grid.fp32(positive), other.fp32(positive))
    assert torch.equal(other.bytes(positive).float(), grid.fp32(positive))
