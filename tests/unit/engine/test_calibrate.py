"""Calibration sees what the model sees, as much as asked, and refuses data that says nothing."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
from torch import nn

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.spec import Override
from quantuner.engine.calibrate import calibrate, first_inputs
from quantuner.engine.capture import Captured, capture
from quantuner.engine.engine import Engine
from quantuner.space.config import TuneConfig
from quantuner.space.samplers import initial
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


@pytest.mark.parametrize(("samples", "told"), [(8, []), (9, ["gave 8 samples, of 9"])])
def test_fewer_samples_than_asked_for_are_told(
    captured: Captured, samples: int, told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", logger="quantuner"):
        calibrate(captured, [images(8)], [4, samples])
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(told)
    assert all(part in whole for part, whole in zip(told, said, strict=True))


def test_a_later_batch_that_the_model_does_not_take_is_told_in_its_own_words() -> None:
    engine = engine_of(nn.Sequential(nn.Linear(4, 2)), loader=[torch.ones(3, 4), torch.ones(3, 7)])
    with pytest.raises(SearchError, match=r"shape \(3, 7\), .* cannot be multiplied \(3x7 and 4x2\)") as caught:
        engine.calibrate()
    assert caught.value.reason == Failure.CALIBRATION_FAILED


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
        pytest.param([images() * torch.nan], "a batch of calib_dataloader holds NaN", id="not a number"),
        pytest.param([torch.ones(2, 3, 4, 4)], "size", id="a shape the model does not take"),
        pytest.param(raising(), r"in raising: OSError: the disk is gone", id="a loader that raises"),
        pytest.param(7, "'int' object is not iterable", id="no loader"),
    ],
)
def test_data_that_cannot_calibrate_is_refused(captured: Captured, loader: Any, says: str) -> None:
    with pytest.raises(SearchError, match=says) as caught:
        calibrate(captured, loader, [100])
    assert caught.value.reason == Failure.CALIBRATION_FAILED


class Masked(nn.Module):
    """Adds a mask to scores; what its two ops read is multiplied by a factor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.second((self.first(x) + mask).softmax(-1) * factor)
        return y


MASK = torch.zeros(4, 4).masked_fill(torch.ones(4, 4).triu(1).bool(), -torch.inf)


def masked(*factors: Any, **settings: Any) -> Engine:
    """Calibrated with a batch for each factor."""
    loader = [((torch.ones(4, 4), MASK, torch.as_tensor(factor).expand(4)), None) for factor in factors]
    return engine_of(
        seeded(Masked), loader=loader, eval_func=lambda model: float(model(*loader[0][0]).sum()), **settings
    )


def test_infinity_that_no_op_reads_is_no_error() -> None:
    engine = masked(1.0)
    ranges = engine.calibrate()[100]
    assert all(seen.is_finite for seen in ranges.values())
    assert engine.trial(initial(engine.space)).accuracy is not None


@pytest.mark.parametrize("approach", ["static", "dynamic"])
@pytest.mark.parametrize(
    ("factors", "says"),
    [
        pytest.param([torch.inf], "nan … nan", id="infinity times 0"),
        pytest.param([1.0, [torch.inf, 1.0, 1.0, 1.0], 1.0], "0.0 … inf", id="some infinity among others"),
        pytest.param([1.0, [-torch.inf, 1.0, 1.0, 1.0]], "-inf … 0.*", id="some negative infinity"),
    ],
)
def test_an_op_that_reads_what_is_not_finite_is_named(approach: str, factors: Any, says: str) -> None:
    with pytest.raises(SearchError, match=rf"the input of second was not finite .*\({says}\)") as caught:
        masked(*factors, approach=approach).calibrate()
    assert caught.value.reason == Failure.CALIBRATION_FAILED


def test_an_op_that_is_never_rounded_may_read_infinity() -> None:
    engine = masked(torch.inf, op_types=(Override("Linear", {("weight", "dtype"): ("fp32",)}),))
    assert not engine.calibrate()[100]["second"].is_finite


@pytest.mark.parametrize(
    "loader",
    [[], iter(()), [torch.ones(0, 4), (torch.ones(0, 4), 0)]],
    ids=["an empty list", "an exhausted iterator", "batches without rows"],
)
def test_without_a_batch_there_are_no_example_inputs(loader: Any) -> None:
    with pytest.raises(SearchError, match="gave no batch") as caught:
        first_inputs(loader)
    assert caught.value.reason == Failure.CALIBRATION_FAILED


def test_example_inputs_are_of_batches_that_hold_samples() -> None:
    none, some = torch.ones(0, 4), torch.ones(2, 4)
    assert first_inputs([none, (some, 0), none, some], batches=2) == [(some,), (some,)]


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
    with pytest.raises(SearchError, match="holds NaN"):
        calibrate(capture(Named(), (batch,)), [{"x": batch["x"] * torch.nan}], [8])
