"""A percentile range holds what it promises and not a bin more, whatever the values look like."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from quantuner.engine.calibrate import Range
from quantuner.engine.percentile import DEFAULT_PERCENT, holding, percent_of
from quantuner.engine.quantize import Activations

counts = st.lists(st.integers(0, 1000), min_size=1, max_size=50)
percents = st.floats(50, 99.999)


def seen(histogram: list[int], low: float = -2.0, high: float = 6.0) -> Range:
    return Range(torch.tensor(low), torch.tensor(high), torch.tensor(histogram, dtype=torch.float32))


@given(counts, percents)
def test_at_most_half_of_the_rest_lies_on_each_side_and_one_bin_less_would_be_too_few(
    histogram: list[int], percent: float
) -> None:
    assume(sum(histogram))
    width, limit = 8 / len(histogram), sum(histogram) * (1 - percent / 100) / 2
    low, high = holding(seen(histogram), percent)
    first, last = round((float(low) + 2) / width), round((float(high) + 2) / width)
    assert first < last
    assert sum(histogram[:first]) <= limit
    assert sum(histogram[last:]) <= limit
    assert sum(histogram[: first + 1]) > limit
    assert sum(histogram[last - 1 :]) > limit


def test_outliers_are_left_out_and_zeros_are_kept() -> None:
    values = torch.cat(
        [torch.zeros(5000), torch.rand(5000, generator=torch.Generator().manual_seed(0)), 100 * torch.ones(1)]
    )
    found = Range(values.min(), values.max(), torch.histc(values, 2048))
    low, high = holding(found, 99.9)
    assert low == 0
    assert 0.9 < high < 1.1


@pytest.mark.parametrize("histogram", [[0, 0, 0], [5]], ids=["no counts", "one bin"])
def test_a_histogram_that_tells_nothing_apart_leaves_the_range_seen(histogram: list[int]) -> None:
    assert [float(end) for end in holding(seen(histogram), 99.0)] == [-2.0, 6.0]


@pytest.mark.parametrize(
    ("algorithm", "percent"),
    [
        ("percentile", DEFAULT_PERCENT),
        ("percentile:99.9", 99.9),
        ("percentile:50", 50.0),
        ("kl", None),
        ("minmax", None),
    ],
)
def test_the_percent_stands_in_the_name(algorithm: str, percent: float | None) -> None:
    assert percent_of(algorithm) == percent


@pytest.mark.parametrize("reduced", [False, True], ids=["8 bits", "7 bits"])
def test_the_scale_is_that_of_the_range_that_is_held(reduced: bool) -> None:
    activations = Activations({"fc": seen([1, 0, 5000, 5000, 0, 0, 0, 1])}, reduce_range=reduced)
    levels = 127 if reduced else 255
    assert activations.qparams("fc", "asym", "percentile:99") == pytest.approx((2 / levels, 0))  # bins 2 and 3: 0 to 2
    assert activations.qparams("fc", "sym", "percentile:99")[0] == pytest.approx(2 / (levels / 2), rel=0.01)
    assert activations.qparams("fc", "asym", "minmax")[0] == pytest.approx(8 / levels)
