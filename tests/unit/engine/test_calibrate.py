"""Calibration sees what the model sees, as much as asked, and refuses data that says nothing."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
from torch import nn

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.calibrate import calibrate, first_inputs
from quantuner.engine.capture import Captured, capture
from quantuner.space.config import TuneConfig
from tests.unit.engine.models import Net, Shared, engine_of, images, seeded


@pytest.fixture(scope="module")
def captured() -> Captured:
    return capture(seeded(Net), (images(),))


class Counting:
    """A loader that counts the batches it was asked for."""

    def __init__(self, *batches: Any) -> None:
        self.batches, self.given = batches, 0

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            self.given += 1
            yield batch


def test_the_range_of_an_op_is_that_of_its_input(captured: Captured) -> None:
    model = seeded(Net)
    x = images(8)
    ranges = calibrate(captured, [x[:4], x[4:]], [100])[100]
    with torch.no_grad():
        into_head = model.get_submodule("stem")(x).relu()
    assert (ranges["stem.0"].minimum, ranges["stem.0"].maximum) == (x.min(), x.max())
    torch.testing.assert_close(ranges["head"].maximum, into_head.max())
    assert ranges["head"].minimum == 0
    assert ranges["stem.0"].histogram.sum() == pytest.approx(x.numel(), rel=0.01)  # rebinning keeps about all


def test_a_shared_modules_range_covers_every_call() -> None:
    x = torch.full((2, 4), 100.0)
    seen = calibrate(capture(seeded(Shared), (x,)), [x], [1])[1]["fc"]
    assert seen.maximum == 100
    assert seen.minimum < 0


@pytest.mark.parametrize(("samples", "batches"), [(1, 1), (4, 1), (5, 2), (8, 2), (1000, 3)])
def test_at_least_the_samples_asked_for_are_run_and_no_batch_more(
    captured: Captured, samples: int, batches: int
) -> None:
    loader = Counting(images(4), (images(4), torch.zeros(4)), [images(4), None])
    calibrate(captured, loader, [samples])
    assert loader.given == batches


def test_several_sizes_are_collected_in_one_pass(captured: Captured) -> None:
    loader = Counting(images(4), images(4, seed=5), images(4, seed=6))
    together = calibrate(captured, loader, [8, 4, 100])
    assert loader.given == 3
    for size in (4, 8, 100):
        alone = calibrate(captured, loader.batches, [size])[size]
        for name, seen in together[size].items():
            assert torch.equal(seen.histogram, alone[name].histogram), (size, name)
            assert (seen.minimum, seen.maximum) == (alone[name].minimum, alone[name].maximum)


def test_calibrating_leaves_the_graph(captured: Captured) -> None:
    before = captured.graph.code
    calibrate(captured, [images()], [8])
    assert captured.graph.code == before


def test_calibrating_twice_gives_the_same(captured: Captured) -> None:
    one, other = (calibrate(captured, [images(4), images(4, seed=5)], [8])[8] for _ in range(2))
    for name in one:
        assert torch.equal(one[name].histogram, other[name].histogram)
        assert (one[name].minimum, one[name].maximum) == (other[name].minimum, other[name].maximum)


def raising() -> Iterator[Any]:
    yield images()
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("loader", "says"),
    [
        pytest.param([], "calib_dataloader gave no batch", id="empty"),
        pytest.param([images() * torch.nan], "a batch of calib_dataloader holds NaN or infinity", id="not a number"),
        pytest.param([images() / 0], "holds NaN or infinity", id="infinite"),
        pytest.param([torch.ones(2, 3, 4, 4)], "size", id="a shape the model does not take"),
        pytest.param(raising(), r"in raising: OSError: the disk is gone", id="a loader that raises"),
        pytest.param(7, "'int' object is not iterable", id="no loader"),
    ],
)
def test_data_that_cannot_calibrate_is_refused(captured: Captured, loader: Any, says: str) -> None:
    with pytest.raises(SearchError, match=says) as caught:
        calibrate(captured, loader, [100])
    assert caught.value.reason == Failure.CALIBRATION_FAILED


class Exploding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc((x * 1000).exp())
        return y


def test_an_overflow_inside_the_model_is_refused() -> None:
    x = torch.ones(2, 4)
    with pytest.raises(SearchError, match="not finite") as caught:
        calibrate(capture(Exploding(), (x,)), [x], [1])
    assert caught.value.reason == Failure.CALIBRATION_FAILED


@pytest.mark.parametrize("loader", [[], iter(())], ids=["an empty list", "an exhausted iterator"])
def test_without_a_batch_there_are_no_example_inputs(loader: Any) -> None:
    with pytest.raises(SearchError, match="gave no batch") as caught:
        first_inputs(loader)
    assert caught.value.reason == Failure.CALIBRATION_FAILED


class Pair(nn.Module):
    """Two inputs, and one that may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return cast("torch.Tensor", self.fc(x + y)) * scale


def test_a_pair_of_single_inputs_calibrates_a_model_of_two() -> None:
    x, y = torch.full((2, 4), 3.0), torch.full((2, 4), 4.0)
    engine = engine_of(Pair(), loader=[(x, y), [x, y]], eval_func=lambda model: float(model(x, y).sum()))
    assert engine.calibrate()[100]["fc"].maximum == 7
    assert [len(inputs) for inputs in engine.calibration_inputs(TuneConfig())()] == [2, 2]


class Named(nn.Module):
    """One input, a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return cast("torch.Tensor", self.fc(batch["x"]))


def test_samples_are_counted_inside_dicts() -> None:
    batch = {"x": torch.ones(4, 4)}
    loader = Counting(*[(batch, torch.zeros(4))] * 5)
    calibrate(capture(Named(), (batch,)), loader, [8])
    assert loader.given == 2


def test_nan_inside_a_dict_is_refused() -> None:
    batch = {"x": torch.ones(4, 4)}
    with pytest.raises(SearchError, match="holds NaN or infinity"):
        calibrate(capture(Named(), (batch,)), [{"x": batch["x"] * torch.nan}], [8])
