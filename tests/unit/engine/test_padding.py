"""Convolutions whose outputs at the border see nothing but padding are told, and padded by an operator of its own."""

import pytest
import torch
from torch import nn

from quantuner.engine import lowering
from quantuner.engine.capture import capture
from quantuner.engine.padding import pad_before, sees_padding_alone
from quantuner.space.samplers import initial
from tests.unit.engine.models import OVERFLOWS, engine_of, seeded


class Wide(nn.Module):
    """Both have more padding than their kernels reach over."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 8, 2, padding=2), nn.Conv2d(8, 6, 1, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.two(self.one(x))
        return y


GRAY = torch.randn(4, 1, 9, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("padding", "dilation", "sizes", "found"),
    [
        ((1, 1), (1, 1), (3, 3), False),
        ((2, 0), (1, 1), (2, 2), True),
        ((0, 2), (1, 2), (2, 2), False),
        ((1,), (1,), (1,), True),
    ],
)
def test_a_kernel_that_fits_into_the_padding_is_told(
    padding: tuple[int, ...], dilation: tuple[int, ...], sizes: tuple[int, ...], found: bool
) -> None:
    assert sees_padding_alone(padding, dilation, sizes) is found


def test_what_is_padded_before_computes_what_it_did() -> None:
    graph = capture(seeded(Wide), (GRAY,)).graph
    before = graph(GRAY)
    pad_before(graph)
    torch.testing.assert_close(graph(GRAY), before)
    pads = [node for node in graph.graph.nodes if node.target is torch.ops.aten.constant_pad_nd.default]
    assert len(pads) == 2


def test_a_compiled_model_computes_what_the_saved_one_does() -> None:
    """Without, it differed by twice the largest output, since oneDNN reads memory that it has not written."""
    engine = engine_of(seeded(Wide), loader=[(GRAY, torch.zeros(4))], reduce_range=OVERFLOWS)
    engine.calibrate()
    model = engine.quantized(initial(engine.space))
    fast = lowering.Lowered(model)
    with torch.no_grad():
        expected = model(GRAY)
        for number in range(20):
            used = [torch.full((size,), float(number + 1)) for size in (16, 64, 128, 512)]
            used.clear()  # what memory holds that is not written
            torch.testing.assert_close(fast(GRAY), expected, rtol=0, atol=0.05)
