"""Convolutions compute channels last, whatever a model does with what they give."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from quantuner.engine.capture import capture
from quantuner.engine.graphs import attribute
from quantuner.space.config import TuneConfig, default_config
from tests.unit.engine.models import engine_of, seeded

IMAGES = torch.linspace(-1, 1, 5 * 3 * 6 * 6).reshape(5, 3, 6, 6)


class Strided(nn.Module):
    """Two convolutions that share a weight, a transposed one, and a `view` that contiguous channels alone allow."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.other.weight = self.one.weight
        self.up = nn.ConvTranspose2d(3, 4, 2, stride=2)
        self.head = nn.Linear(4 * 12 * 12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.up(self.other(self.one(x).relu()))
        z: torch.Tensor = self.head(y.view(y.size(0), -1))
        return z


class Flat(nn.Module):
    """Reads memory in the order in which it lies."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return y.as_strided((5, 8), (64, 1))


def lies_last(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def test_weights_of_images_lie_channels_last_and_the_users_do_not() -> None:
    model = seeded(Strided)
    captured = capture(model, (IMAGES,))
    weights = {name: attribute(captured.graph, f"{name}.weight") for name in ("one", "other", "up", "head")}
    assert [name for name, weight in weights.items() if lies_last(weight)] == ["one", "other", "up"]
    assert weights["one"].data_ptr() == weights["other"].data_ptr()
    assert not any(lies_last(parameter) for parameter in model.parameters())


@pytest.mark.parametrize("make", [Strided, Flat])
def test_the_graph_computes_what_the_model_does(make: Callable[[], nn.Module]) -> None:
    model = seeded(make)
    captured = capture(model, (IMAGES,))
    torch.testing.assert_close(captured.graph(IMAGES), model(IMAGES))


class Gray(nn.Module):
    """Two convolutions of one image of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(1, 3, 3), nn.Conv2d(1, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.one(x) + self.other(x)
        return y


def test_what_is_computed_of_a_gray_image_lies_channels_last_and_the_image_is_copied_once() -> None:
    gray = IMAGES[:, :1]
    model = seeded(Gray)
    captured = capture(model, (gray,))
    assert lies_last(captured.graph(gray))
    assert not lies_last(model(gray))
    torch.testing.assert_close(captured.graph(gray), model(gray))
    targets = [node.target for node in captured.graph.graph.nodes]
    assert targets.count(torch.ops.aten.clone.default) == 1


@pytest.mark.parametrize("make", [lambda: nn.Conv2d(2, 4, (1, 3)), lambda: nn.ConvTranspose2d(2, 4, (1, 3))])
def test_one_image_without_a_batch_is_no_gray_one(make: Callable[[], nn.Module]) -> None:
    image = torch.linspace(-1, 1, 16).reshape(2, 1, 8)
    model = seeded(make)
    torch.testing.assert_close(capture(model, (image,)).graph(image), model(image))


def test_a_graph_that_reads_strides_stays_as_it_is() -> None:
    captured = capture(seeded(Flat), (IMAGES,))
    assert not lies_last(attribute(captured.graph, "conv.weight"))


def test_a_trial_and_the_converted_model_compute_channels_last_to_the_same_bits() -> None:
    engine = engine_of(seeded(Strided), loader=[(IMAGES, None)])
    engine.calibrate()
    config = TuneConfig({one.op.name: default_config(one) for one in engine.space})
    seen: list[bool] = []
    converted = engine.quantized(config)
    for node in converted.graph.nodes:
        if node.name == "conv_transpose2d":
            with converted.graph.inserting_after(node):
                converted.graph.call_function(lambda value: seen.append(lies_last(value)), (node,))
    converted.recompile()
    torch.testing.assert_close(engine.switchable(config).model(config)(IMAGES), converted(IMAGES), rtol=0, atol=0)
    assert seen == [True]
