"""Small int8 convolutions are matrix products with the same values; which products are small."""

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from quantuner.engine import products
from quantuner.engine.lowering import for_shapes_of
from quantuner.engine.products import has_small_products, products_of_convolutions
from quantuner.space.config import FP32
from quantuner.space.samplers import initial
from tests.unit.engine.models import engine_of, images, seeded

CONVOLUTIONS = {
    "padded": lambda: nn.Conv2d(2, 3, 3, padding=1),
    "with a stride, without a bias": lambda: nn.Conv2d(2, 3, (3, 2), (1, 2), bias=False),
    "of single pixels": lambda: nn.Conv2d(2, 3, 1, 2),
}
OTHERS = {
    "in groups": lambda: nn.Conv2d(2, 4, 3, groups=2),
    "dilated": lambda: nn.Conv2d(2, 3, 2, dilation=2),
}


def fixed(convolution: object, approach: str = "static") -> tuple[GraphModule, torch.Tensor]:
    engine = engine_of(seeded(convolution), approach=approach)  # type: ignore[arg-type]
    engine.calibrate()
    model = engine.quantized(initial(engine.space))
    with torch.no_grad():
        return for_shapes_of(model, (images(3),))[0], model(images(3))


def convolutions(model: GraphModule) -> int:
    return sum(node.target is torch.ops.aten.conv2d.default for node in model.graph.nodes)


@pytest.mark.parametrize("convolution", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_small_convolution_is_a_product(convolution: object) -> None:
    model, expected = fixed(convolution)
    assert convolutions(model) == 1
    assert products_of_convolutions(model) == 1
    assert convolutions(model) == 0
    with torch.no_grad():
        torch.testing.assert_close(model(images(3)), expected)


@pytest.mark.parametrize("convolution", OTHERS.values(), ids=OTHERS)
def test_others_stay(convolution: object) -> None:
    model, expected = fixed(convolution)
    assert products_of_convolutions(model) == 0
    assert convolutions(model) == 1
    with torch.no_grad():
        torch.testing.assert_close(model(images(3)), expected)


def test_one_whose_range_is_that_of_its_batch_stays() -> None:
    assert products_of_convolutions(fixed(CONVOLUTIONS["padded"], "dynamic")[0]) == 0


def test_one_that_is_large_keeps_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def pair() -> nn.Module:
        return nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 3))

    assert products_of_convolutions(fixed(pair)[0]) == 2
    monkeypatch.setattr(products, "SMALL", 2 * 3 * 3 * 4 * 4 * 2)  # the first one's
    assert products_of_convolutions(fixed(pair)[0]) == 0


def test_a_large_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    operations = 2 * 3 * 3 * 4 * 4 * 2 * 3 * 3  # images, channels, rows, columns; of 2 x 3 x 3 products each
    monkeypatch.setattr(products, "SMALL", operations - 1)
    assert products_of_convolutions(fixed(CONVOLUTIONS["padded"])[0]) == 0
    monkeypatch.setattr(products, "SMALL", operations)
    assert products_of_convolutions(fixed(CONVOLUTIONS["padded"])[0]) == 1


class Multiplying(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x.flatten(1)[:, :16]).relu()
        z: torch.Tensor = self.last(y @ y.T @ y)
        return z


LINEARS = {
    "of every row": lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)),
    "behind a convolution": lambda: nn.Sequential(nn.Conv2d(2, 3, 1), nn.Linear(4, 3)),
    "beside other products": Multiplying,
}


@pytest.mark.parametrize(
    ("model", "approach", "fallback", "small"),
    [
        pytest.param("of every row", "static", (), True, id="static"),
        pytest.param("of every row", "static", ("2",), False, id="one in fp32"),
        pytest.param("of every row", "dynamic", (), False, id="dynamic"),
        pytest.param("behind a convolution", "static", (), False, id="behind a convolution"),
        pytest.param("beside other products", "static", (), False, id="beside other products"),
    ],
)
def test_products_are_small_where_all_are_int8_linears(
    model: str, approach: str, fallback: tuple[str, ...], small: bool
) -> None:
    engine = engine_of(seeded(LINEARS[model]), approach=approach)
    engine.calibrate()
    quantized = engine.quantized(initial(engine.space).having(dict.fromkeys(fallback, FP32)))
    with torch.no_grad():
        program, _ = for_shapes_of(quantized, (images(3),))
    assert has_small_products(program) is small


def test_products_are_small_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    program, _ = fixed(LINEARS["of every row"])
    rows = images(3).numel() // 4
    monkeypatch.setattr(products, "SMALL_PRODUCT", 2 * rows * 4 * 8)
    assert has_small_products(program)
    monkeypatch.setattr(products, "SMALL_PRODUCT", 2 * rows * 4 * 8 - 1)
    assert not has_small_products(program)
