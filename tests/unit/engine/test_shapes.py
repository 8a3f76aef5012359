"""Which sizes of its inputs a captured model leaves open."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.export import Dim

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.capture import capture
from quantuner.engine.shapes import at_least_two, dynamic_shapes
from quantuner.space.config import TuneConfig, default_config
from tests.unit.engine.models import Net, engine_of, images, seeded


def rows(count: int, length: int = 4) -> torch.Tensor:
    return torch.linspace(-1, 1, count * length).view(count, length)


class Mixes(nn.Module):
    """Its rows depend on each other: a batch of one says nothing about a batch of two."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(x) / len(x)
        return y


class OneOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(x.view(4))
        return y


class Summed(nn.Module):
    """Takes sequences of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(x).sum(1)
        return y


def test_an_example_without_a_sample_is_refused() -> None:
    with pytest.raises(SearchError, match="the example inputs hold no sample: the first dimension") as caught:
        capture(seeded(Net), (images(0),))
    assert caught.value.reason is Failure.MODEL_NOT_CAPTURABLE


def test_a_batch_of_one_leaves_the_batch_open() -> None:
    model = seeded(Net)
    graph = capture(model, (images(1),)).graph
    for count in (1, 2, 5):
        torch.testing.assert_close(graph(images(count)), model(images(count)))


def test_trials_take_other_batches_than_the_one_that_the_model_was_captured_with() -> None:
    engine = engine_of(seeded(Net), loader=[(images(1, seed), 0) for seed in range(4)])
    engine.calibrate()
    config = TuneConfig({capability.op.name: default_config(capability) for capability in engine.space})
    told = engine.trial(config)  # evaluates 16 images
    assert told.error == ""
    with torch.no_grad():
        assert told.accuracy == float(engine.quantized(config)(images(16, seed=2)).mean())


class Listed(nn.Module):
    """Gives a value for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [row.sum() for row in self.fc(x * 0)]


@pytest.mark.parametrize("make", [Mixes, OneOnly, Listed])
def test_a_model_that_gives_a_repeated_input_another_output_keeps_its_example(make: Callable[[], nn.Module]) -> None:
    inputs = (rows(1),)
    assert at_least_two(seeded(make), inputs) is inputs


def test_inputs_of_which_only_some_have_one_row_are_left_as_they_are() -> None:
    inputs = (rows(3), torch.ones(1))
    assert at_least_two(nn.Identity(), inputs) is inputs


def test_dimension_0_is_open_and_what_differs_from_batch_to_batch() -> None:
    inputs = (torch.ones(2, 3, 4), {"mask": torch.ones(2, 3), "scale": 2.0})
    longer = (torch.ones(2, 5, 4), {"mask": torch.ones(2, 5), "scale": 3.0})
    first = {0: Dim.AUTO}
    both = {0: Dim.AUTO, 1: Dim.AUTO}
    assert dynamic_shapes(inputs) == (first, {"mask": first, "scale": None})
    assert dynamic_shapes(inputs, [inputs, longer]) == (both, {"mask": both, "scale": None})
    assert dynamic_shapes(inputs, [(torch.ones(2, 5, 4),)]) == (first, {"mask": first, "scale": None})


def test_sequences_that_are_padded_by_batch_leave_the_length_open() -> None:
    model = seeded(Summed)
    engine = engine_of(model, loader=[(torch.ones(2, length, 3), 0) for length in (5, 5, 7)])
    for length in (4, 9):
        x = torch.ones(3, length, 3)
        torch.testing.assert_close(engine.captured.graph(x), model(x))
