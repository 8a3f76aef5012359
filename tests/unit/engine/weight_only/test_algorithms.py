"""GPTQ, AWQ and HQQ each lose less than rounding does, where there is what they stand on."""

import pytest
import torch

from quantuner.engine.weight_only.awq import awq
from quantuner.engine.weight_only.gptq import gptq
from quantuner.engine.weight_only.grid import Grid, rounded
from quantuner.engine.weight_only.hqq import hqq
from quantuner.engine.weight_only.stored import StoredWeight
from tests.unit.engine.weight_only.models import correlated, inputs_seen, output_error, weight

GRIDS = [Grid(4, 32, symmetric=True), Grid(4, 96, symmetric=False), Grid(8, 32, symmetric=False)]
EVERY_GRID = pytest.mark.parametrize("grid", GRIDS, ids=str)


def plain(grid: Grid, fp32: torch.Tensor) -> torch.Tensor:
    value: torch.Tensor = StoredWeight(rounded(fp32, grid), grid, fp32.shape[1])()
    return value


@EVERY_GRID
def test_gptq_makes_up_for_errors_where_inputs_are_correlated(grid: Grid) -> None:
    fp32, seen, other = weight(), correlated(seed=1), correlated(seed=1)[:64] * 1.1
    stored = StoredWeight(gptq(fp32, inputs_seen(seen), grid), grid, 96)()
    assert output_error(stored, fp32, other) < output_error(plain(grid, fp32), fp32, other) / 3


@EVERY_GRID
def test_gptq_is_rounding_where_inputs_are_independent(grid: Grid) -> None:
    seen = inputs_seen(torch.eye(96))
    on_grid, expected = gptq(weight(), seen, grid), rounded(weight(), grid)
    assert torch.equal(on_grid.values, expected.values)
    assert torch.equal(on_grid.scale, expected.scale)


def test_gptq_column_by_column_is_what_the_paper_defines() -> None:
    """Against its equations 2 and 3 carried out literally: the inverse Hessian of the columns that are left."""
    grid, fp32, seen = Grid(8, 12, symmetric=True), weight(4, 12), inputs_seen(correlated(columns=12))
    left, expected = fp32.double(), torch.empty(4, 12, dtype=torch.int8)
    scale = rounded(fp32, grid).scale.double()
    hessian = seen.products.double()
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(12)
    for q in range(12):
        inverse = hessian[q:, q:].inverse()
        expected[:, q : q + 1] = (left[:, q : q + 1] / scale).round().clamp(-128, 127)
        error = left[:, q : q + 1] - expected[:, q : q + 1] * scale
        left[:, q:] -= error / inverse[0, 0] * inverse[0]
    assert torch.equal(gptq(fp32, seen, grid).values, expected)


def test_gptq_leaves_channels_that_calibration_never_lit_to_rounding() -> None:
    rows = correlated()
    rows[:, 5:40] = 0.0
    grid = Grid(4, 96, symmetric=True)
    on_grid = gptq(weight(), inputs_seen(rows), grid)
    assert torch.equal(on_grid.values[:, 5:40], rounded(weight(), grid).values[:, 5:40])


@EVERY_GRID
def test_awq_spares_the_channels_that_meet_large_activations(grid: Grid) -> None:
    rows = torch.randn(256, 96, generator=torch.Generator().manual_seed(3))
    rows[:, ::16] *= 20
    fp32 = weight()
    stored = awq(fp32, inputs_seen(rows), grid)
    assert output_error(stored(), fp32, rows) < output_error(plain(grid, fp32), fp32, rows) / 2
    assert stored.input_scale is not None
    assert stored.input_scale[::16].min() > stored.input_scale[1::16].max()


def test_awq_is_rounding_where_no_scale_helps() -> None:
    grid, seen = GRIDS[0], inputs_seen(torch.eye(96))
    assert torch.equal(awq(weight(), seen, grid)(), plain(grid, weight()))


def test_awq_takes_channels_that_are_always_zero() -> None:
    rows = correlated()
    rows[:, 7] = 0.0
    assert awq(weight(), inputs_seen(rows), GRIDS[0])().isfinite().all()


@pytest.mark.parametrize("grid", GRIDS[:2], ids=str)
def test_hqq_fits_the_weight_itself_better(grid: Grid) -> None:
    fp32 = weight()
    fp32[:, ::24] *= 4  # heavy tails, which a range alone would follow

    def error(value: torch.Tensor) -> float:
        return float((value - fp32).abs().pow(0.7).mean())

    assert error(StoredWeight(hqq(fp32, grid), grid, 96)()) < error(plain(grid, fp32))


@pytest.mark.parametrize("unit", [1e-2, 1e-4, 1e-8, 1e-30, 1e4, 1e30])
@pytest.mark.parametrize("grid", [*GRIDS, Grid(8, 96, symmetric=True)], ids=str)
def test_hqq_does_not_depend_on_the_unit_of_weights(grid: Grid, unit: float) -> None:
    """torchao's has a least scale: weights of a hundredth and less would be lost."""
    fp32 = weight()
    found = StoredWeight(hqq(fp32 * unit, grid), grid, 96)() / unit
    torch.testing.assert_close(found, StoredWeight(hqq(fp32, grid), grid, 96)(), rtol=1e-3, atol=2e-2)
    assert (found - fp32).square().mean() < 1.2 * (plain(grid, fp32) - fp32).square().mean()


@pytest.mark.parametrize("value", [0.0, 1e-6, 0.5, -3.0, 1e5])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_hqq_of_groups_without_a_range(grid: Grid, value: float) -> None:
    fp32 = torch.full((4, 96), value)
    torch.testing.assert_close(StoredWeight(hqq(fp32, grid), grid, 96)(), fp32, rtol=1e-2, atol=0.0)


def test_gptq_does_not_depend_on_the_unit_of_inputs_where_rows_are_padded() -> None:
    grid = Grid(4, 64, symmetric=True)
    fp32 = torch.randn(8, 100, generator=torch.Generator().manual_seed(1))
    seen = torch.randn(200, 100, generator=torch.Generator().manual_seed(2))
    seen[:, 1:] += seen[:, :-1]  # correlated
    values = [gptq(grid.padded(fp32), inputs_seen(seen * unit), grid).values for unit in (1, 2**-10)]
    assert torch.equal(*values)
