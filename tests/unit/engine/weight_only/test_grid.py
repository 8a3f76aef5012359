"""Rounding to a grid: its ends, its groups, and how far a value is from its point."""

import pytest
import torch

from quantuner.engine.weight_only.grid import Grid, rounded
from quantuner.engine.weight_only.stored import StoredWeight
from tests.unit.engine.weight_only.models import options, weight


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False], ids=["sym", "asym"])
@pytest.mark.parametrize("group", [32, 96])
def test_no_value_is_farther_from_its_point_than_half_a_step(bits: int, symmetric: bool, group: int) -> None:
    grid, fp32 = Grid(bits, group, symmetric), weight() + 0.5
    on_grid = rounded(fp32, grid)
    error = (StoredWeight(on_grid, grid, 96)() - fp32).abs().view(24, -1, group)
    allowed = on_grid.scale.unsqueeze(-1) * (0.5 if symmetric else 1.0)  # a rounded zero point moves a range's ends
    assert (error <= allowed * 1.0001).all()
    assert on_grid.values.min() >= grid.low
    assert on_grid.values.max() <= grid.high
    assert on_grid.values.unique().numel() > 2 ** (bits - 1)


def test_a_symmetric_grid_has_its_largest_value_at_an_end_and_keeps_zero() -> None:
    fp32 = torch.tensor([[0.0, 7.0, -3.0, 1.0]])
    on_grid = rounded(fp32, Grid(4, 4, symmetric=True))
    assert on_grid.values.tolist() == [[0, 7, -3, 1]]
    assert on_grid.scale.tolist() == [[1.0]]
    assert on_grid.zero_point is None


def test_an_asymmetric_grid_spans_what_is_there_and_zero() -> None:
    on_grid = rounded(torch.tensor([[0.0, 15.0, 5.0, 1.0]]), Grid(4, 4, symmetric=False))
    assert on_grid.values.tolist() == [[-8, 7, -3, -7]]
    assert on_grid.scale.tolist() == [[1.0]]
    assert on_grid.zero_point is not None
    assert on_grid.zero_point.tolist() == [[-8]]


def test_an_outlier_takes_levels_from_its_own_group_alone() -> None:
    fp32 = weight()
    fp32[:, 0] = 100.0

    def error(group: int) -> float:
        grid = Grid(4, group, symmetric=True)
        return float((StoredWeight(rounded(fp32, grid), grid, 96)() - fp32)[:, 32:].square().mean())

    assert error(32) < error(96) / 10


@pytest.mark.parametrize(
    ("columns", "asked", "group", "width"),
    [(96, 32, 32, 96), (96, -1, 96, 96), (45, 32, 32, 64), (45, 64, 46, 46), (45, -1, 46, 46)],
)
def test_a_group_is_at_most_a_row_and_rows_are_filled_with_zeros(
    columns: int, asked: int, group: int, width: int
) -> None:
    grid = Grid.of(options(group=asked), columns)
    padded = grid.padded(weight(columns=columns))
    assert (grid.group, padded.shape[1]) == (group, width)
    assert torch.equal(padded[:, :columns], weight(columns=columns))
    assert not padded[:, columns:].any()


def test_rows_of_zeros_stay_zero() -> None:
    for symmetric in (True, False):
        grid = Grid(4, 32, symmetric)
        assert not StoredWeight(rounded(torch.zeros(2, 64), grid), grid, 64)().any()
