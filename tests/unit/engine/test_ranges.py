"""Kept ranges are used exactly where calibrating again would give the same."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torch import nn

from quantuner.engine.calibrate import Calibration, Range, ranges_digest
from quantuner.engine.capture import capture
from quantuner.engine.engine import Engine
from quantuner.engine.ranges import FORMAT, KEPT, RANGES_FILE, InputsDigest, KeptRanges, calibrated_digest
from quantuner.space.samplers import initial
from tests.unit.engine.kept import mark_ranges
from tests.unit.engine.models import Net, engine_of, images, seeded


def keeping(folder: Path, loader: Any = None, model: nn.Module | None = None) -> Engine:
    engine = engine_of(model or seeded(Net), loader=loader)
    engine.kept_ranges = KeptRanges(folder / RANGES_FILE)
    return engine


def is_marked(calibration: Calibration) -> bool:
    return all(seen.maximum > 500 for ranges in calibration.values() for seen in ranges.values())


def test_what_is_kept_is_what_was_calibrated_to_the_bit(tmp_path: Path) -> None:
    made = keeping(tmp_path).calibrate()
    read = keeping(tmp_path).calibrate()
    assert ranges_digest(read) == ranges_digest(made) == ranges_digest(engine_of(seeded(Net)).calibrate())
    assert read.keys() == made.keys()


def test_a_search_on_the_same_data_does_not_calibrate(tmp_path: Path) -> None:
    keeping(tmp_path).calibrate()
    mark_ranges(tmp_path)
    assert is_marked(keeping(tmp_path).calibrate())


class Otherwise(Net):
    """The ops and weights of Net, and another function between them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.stem(x).tanh().flatten(1))
        return y


def heavier() -> nn.Module:
    model = seeded(Net)
    with torch.no_grad():
        model.get_parameter("stem.0.weight").mul_(2)
    return model


ANOTHER: dict[str, Callable[[Path], Engine]] = {
    "a pixel": lambda folder: keeping(folder, [(_with_a_pixel(images()), torch.zeros(8))]),
    "the order": lambda folder: keeping(folder, [(images().flip(0), torch.zeros(8))]),
    "the batches": lambda folder: keeping(folder, [images()[:4], images()[4:]]),
    "more data": lambda folder: keeping(folder, [images(), images()]),
    "the weights": lambda folder: keeping(folder, model=heavier()),
    "the function between ops": lambda folder: keeping(folder, model=seeded(Otherwise)),
}


def _with_a_pixel(x: torch.Tensor) -> torch.Tensor:
    x[0, 0, 0, 0] += 1e-6
    return x


@pytest.mark.parametrize("another", ANOTHER.values(), ids=ANOTHER)
def test_a_change_calibrates_anew_and_is_kept(tmp_path: Path, another: Callable[[Path], Engine]) -> None:
    keeping(tmp_path).calibrate()
    mark_ranges(tmp_path)
    assert not is_marked(another(tmp_path).calibrate())
    mark_ranges(tmp_path)
    assert is_marked(another(tmp_path).calibrate())


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_ranges_that_cannot_be_written_leave_no_part_of_a_file(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(_: Any, file: BinaryIO) -> None:
        file.write(bytes(1000))
        raise error

    engine = keeping(tmp_path)
    monkeypatch.setattr(torch, "save", fill)
    with contextlib.suppress(KeyboardInterrupt):
        engine.calibrate()
    assert list(tmp_path.iterdir()) == []


def test_labels_do_not_count(tmp_path: Path) -> None:
    keeping(tmp_path, [(images(), torch.zeros(8))]).calibrate()
    mark_ranges(tmp_path)
    assert is_marked(keeping(tmp_path, [(images(), torch.ones(8))]).calibrate())


def test_the_sizes_and_the_threads_count(tmp_path: Path) -> None:
    engine = keeping(tmp_path)
    known = calibrated_digest(engine.captured, (8,), (1,))
    others = [calibrated_digest(engine.captured, (8, 16), (1,)), calibrated_digest(engine.captured, (8,), (2,))]
    assert known not in others
    assert known == calibrated_digest(capture(seeded(Net), (images(),)), (8,), (1,))


def test_a_variant_of_the_model_is_kept_beside_it(tmp_path: Path) -> None:
    engine = keeping(tmp_path)
    engine.calibrate()
    config = replace(initial(engine.space), recipes={"smooth_quant": True})
    first = engine.quantized(config)(images(5))
    mark_ranges(tmp_path)
    again = keeping(tmp_path)
    again.calibrate()
    assert not torch.equal(again.quantized(config)(images(5)), first)  # of marked ranges


def test_data_of_an_unknown_kind_are_never_taken_for_the_same() -> None:
    read = InputsDigest()
    read.update((images(), object()))
    assert read.value is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param((torch.zeros(2),), (torch.zeros(2, dtype=torch.float64),), id="type"),
        pytest.param((torch.zeros(2, 3),), (torch.zeros(3, 2),), id="shape"),
        pytest.param(({"a": torch.zeros(2)},), ({"b": torch.zeros(2)},), id="key"),
        pytest.param((torch.zeros(2), 1), (torch.zeros(2), 2), id="number"),
        pytest.param((torch.zeros(2, dtype=torch.bfloat16),), (torch.ones(2, dtype=torch.bfloat16),), id="content"),
        pytest.param((torch.tensor(1.0),), (torch.tensor(2.0),), id="scalar"),
    ],
)
def test_digests_tell_batches_apart(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    digests = []
    for inputs in (one, other):
        read = InputsDigest()
        read.update(inputs)
        digests.append(read.value)
    assert None not in digests
    assert digests[0] != digests[1]


def small() -> Calibration:
    return {8: {"fc": Range(torch.tensor(-1.0), torch.tensor(1.0), torch.ones(4))}}


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-40]), id="torn"),
        pytest.param(lambda path: path.write_text("no ranges"), id="another file"),
        pytest.param(lambda path: torch.save({"format": FORMAT, "entries": {"a": 1}}, path), id="another content"),
        pytest.param(lambda path: torch.save({"format": FORMAT + 1, "entries": {}}, path), id="another format"),
        pytest.param(lambda path: torch.save(small(), path), id="a pickled object"),
        pytest.param(lambda path: path.unlink(), id="gone"),
    ],
)
def test_a_file_that_cannot_be_read_counts_as_empty_and_is_replaced(
    tmp_path: Path, damage: Callable[[Path], Any]
) -> None:
    kept = KeptRanges(tmp_path / RANGES_FILE)
    kept.keep("a", "data", small())
    damage(tmp_path / RANGES_FILE)
    assert kept.find("a") is None
    kept.keep("b", "data", small())
    found = kept.find("b")
    assert found is not None
    assert (found[0], ranges_digest(found[1])) == ("data", ranges_digest(small()))


def test_the_latest_are_kept_and_no_partial_file(tmp_path: Path) -> None:
    kept = KeptRanges(tmp_path / RANGES_FILE)
    for number in range(KEPT + 2):
        kept.keep(str(number), "data", small())
    assert [number for number in range(KEPT + 2) if kept.find(str(number))] == [*range(2, KEPT + 2)]
    assert [path.name for path in tmp_path.iterdir()] == [RANGES_FILE]


def test_what_cannot_be_written_does_not_stop_a_search(tmp_path: Path) -> None:
    engine = engine_of(seeded(Net))
    engine.kept_ranges = KeptRanges(tmp_path / "no such folder" / RANGES_FILE)
    engine.calibrate()
    assert engine.trial(initial(engine.space)).accuracy is not None


def test_other_files_are_read_and_not_written(tmp_path: Path) -> None:
    keeping(tmp_path).calibrate()
    mark_ranges(tmp_path)
    before = (tmp_path / RANGES_FILE).read_bytes()
    engine = engine_of(seeded(Net))
    engine.kept_ranges = KeptRanges(others=[tmp_path / RANGES_FILE])
    assert is_marked(engine.calibrate())
    other = engine_of(seeded(Net), loader=[images(4)])
    other.kept_ranges = engine.kept_ranges
    other.calibrate()
    assert (tmp_path / RANGES_FILE).read_bytes() == before
