"""Convolutions compute channels last, whatever a model does with what they give."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from quantuner.engine.capture import capture
from quantuner.engine.graphs import attribute
from quantuner.engine.quantized import load
from quantuner.space.config import TuneConfig, default_config
from tests.unit.engine.models import OVERFLOWS, engine_of, seeded

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


class Viewed(nn.Module):
    """A view in the shape of another tensor, which contiguous channels alone allow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return y.view_as(torch.zeros(y.size(0), 64))


class Complex(nn.Module):
    """Pairs of neighbouring numbers are one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, (3, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.view_as_complex(self.conv(x)).abs()


def lies_last(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def see(graph: GraphModule, name: str, seen: list[bool]) -> None:
    """Tells at every call whether the value of a node lies channels last."""
    (node,) = (node for node in graph.graph.nodes if node.name == name)
    with graph.graph.inserting_after(node):
        graph.graph.call_function(lambda value: seen.append(lies_last(value)), (node,))
    graph.recompile()


def test_weights_of_images_lie_channels_last_and_the_users_do_not() -> None:
    model = seeded(Strided)
    captured = capture(model, (IMAGES,))
    weights = {name: attribute(captured.graph, f"{name}.weight") for name in ("one", "other", "up", "head")}
    assert [name for name, weight in weights.items() if lies_last(weight)] == ["one", "other", "up"]
    assert weights["one"].data_ptr() == weights["other"].data_ptr()
    assert not any(lies_last(parameter) for parameter in model.parameters())


@pytest.mark.parametrize("make", [Strided, Flat, Viewed, Complex])
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
    seen: list[bool] = []
    see(captured.graph, "add", seen)
    captured.graph(gray)
    assert seen == [True]
    torch.testing.assert_close(captured.graph(gray), model(gray))
    targets = [node.target for node in captured.graph.graph.nodes]
    assert targets.count(torch.ops.aten.clone.default) == 1


class Images(nn.Module):
    """Returns what a convolution gives: as it is, joined, and beside an input, what is no image, and a view."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.one(x).relu()
        z = self.two(y)
        return {
            "y": y,
            "again": y,
            "z": z,
            "x": x,
            "rows": z.flatten(2),
            "anchors": z.view(-1, 2, 2, 4, 4),
            "mean": z.mean(0),
        }


def test_what_is_returned_lies_as_the_users_model_returns_it(tmp_path: Path) -> None:
    """Who has it may view it in another shape: in a trial, converted, saved and compiled."""
    user = seeded(Images)
    engine = engine_of(user, loader=[(IMAGES, None)], reduce_range=OVERFLOWS)
    engine.calibrate()
    config = TuneConfig({one.op.name: default_config(one) for one in engine.space})
    model = engine.quantized_model(config)
    model.save(tmp_path / "model")
    saved = load(tmp_path / "model")
    with torch.no_grad():
        expected = model(IMAGES)
        for found in (engine.switchable(config).model(config), saved, saved.compiled(), user):
            outputs = found(IMAGES)
            assert outputs.keys() == expected.keys()
            assert all(output.is_contiguous() for output in outputs.values())
            assert outputs["y"].view(5, -1).shape == (5, 64)
        for found in (engine.switchable(config).model(config), saved):
            assert all(torch.equal(output, expected[name]) for name, output in found(IMAGES).items())


def test_what_is_returned_is_copied_once_and_only_where_it_lies_otherwise() -> None:
    graph = capture(seeded(Images), (IMAGES,)).graph
    seen: list[bool] = []
    see(graph, "relu", seen)
    outputs = graph(IMAGES)
    assert seen == [True]  # the next convolution still reads it channels last
    assert outputs["y"].data_ptr() == outputs["again"].data_ptr()
    assert outputs["x"] is IMAGES
    gray = capture(seeded(lambda: nn.Conv2d(3, 1, 3)), (IMAGES,)).graph
    (copy,) = (node for node in gray.graph.nodes if node.target is torch.ops.aten.contiguous.default)
    with torch.fx.traceback.preserve_node_meta(), torch.no_grad():
        found = torch.fx.Interpreter(gray, garbage_collect_values=False)
        found.run(IMAGES)
    assert found.env[copy].data_ptr() == found.env[copy.args[0]].data_ptr()  # one channel lies in both orders


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
    see(converted, "conv_transpose2d", seen)
    torch.testing.assert_close(engine.switchable(config).model(config)(IMAGES), converted(IMAGES), rtol=0, atol=0)
    assert seen == [True]


class Chosen(nn.Module):
    """Returns places that data choose, as many as they are; they lie column after column."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nonzero(self.conv(x).sum((2, 3)) > 0)


def test_places_that_data_choose_are_returned_as_they_lie() -> None:
    captured = capture(Chosen().eval(), (torch.randn(8, 2, 4, 4),))
    assert captured.graph(torch.zeros(2, 2, 4, 4)).shape[1] == 2
