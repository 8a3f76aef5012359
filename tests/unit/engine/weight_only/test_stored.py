"""What is stored is small, and gives back the values of its grid."""

import pytest
import torch

from quantuner.engine.weight_only.grid import Grid, Rounded
from quantuner.engine.weight_only.stored import StoredWeight
from quantuner.space.cost import weight_bits
from tests.unit.engine.weight_only.models import options


@pytest.mark.parametrize("bits", [4, 8])
def test_every_value_of_the_grid_comes_back(bits: int) -> None:
    grid = Grid(bits, 2**bits, symmetric=True)
    values = torch.arange(grid.low, grid.high + 1, dtype=torch.int8).view(1, -1)
    stored = StoredWeight(Rounded(values, torch.tensor([[0.5]]), None), grid, 2**bits)
    assert torch.equal(stored(), values * 0.5)


def test_zero_points_input_scales_and_padding_are_undone() -> None:
    grid = Grid(4, 2, symmetric=False)
    values = torch.tensor([[1, 2, 3, 0]], dtype=torch.int8)
    on_grid = Rounded(values, torch.tensor([[2.0, 10.0]]), torch.tensor([[1, -1]], dtype=torch.int8))
    assert StoredWeight(on_grid, grid, 3)().tolist() == [[0.0, 2.0, 40.0]]
    assert StoredWeight(on_grid, grid, 3, torch.tensor([1.0, 2.0, 4.0]))().tolist() == [[0.0, 1.0, 10.0]]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("scheme", ["sym", "asym"])
def test_its_size_is_the_one_that_is_modelled(bits: int, scheme: str) -> None:
    grid = Grid(bits, 32, scheme == "sym")
    zero_point = None if grid.symmetric else torch.zeros(16, 4, dtype=torch.int8)
    stored = StoredWeight(
        Rounded(torch.zeros(16, 128, dtype=torch.int8), torch.ones(16, 4), zero_point), grid, columns=128
    )
    assert stored.nbytes * 8 == 16 * 128 * weight_bits(options(bits, 32, scheme))
