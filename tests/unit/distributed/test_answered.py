"""Results that wait to be told: kept for the same trial of the same search, and never a reason for a search to end."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from quantuner.api.trial import TrialResult
from quantuner.distributed.answered import ANSWERED_FILE, LEAST_SECONDS, LIMIT_BYTES, TRACEBACK_LIMIT, Answered
from quantuner.distributed.executors import Serial, Told

RESULT = TrialResult(
    accuracy=0.1 + 0.2, is_bound=True, rows=(3, 4), objectives={"performance": 1 / 3}, seconds=LEAST_SECONDS
)
FAILED = TrialResult(accuracy=None, bound=0.5, seconds=0.0, error="it failed", traceback="a\nb")


def digests(index: int) -> dict[int, str]:
    return {i: f"digest{i}" for i in range(index, 3000)}


def answered(folder: Path | None, search: str = "this", first: int = 1, **options: Any) -> Answered:
    """As a launch of a search has it, before its first trial."""
    made = Answered(folder, **options)
    made.begin(search)
    made.expect(digests(first))
    return made


@pytest.mark.parametrize("result", [RESULT, FAILED], ids=["measured", "failed"])
def test_a_relaunch_knows_what_waited_to_the_bit(tmp_path: Path, result: TrialResult) -> None:
    answered(tmp_path).keep({7: (result, 3)}, told=5)
    assert answered(tmp_path, first=5).known(range(5, 9)) == {7: (result, 3)}
    assert answered(tmp_path, first=8).known(range(8, 9)) == {}


def test_each_search_and_configuration_has_its_own(tmp_path: Path) -> None:
    answered(tmp_path).keep({7: (RESULT, 3)}, told=5)
    assert answered(tmp_path, "another").known([7]) == {}
    here = answered(tmp_path)
    here.expect({7: "of another configuration"})
    assert here.known([7]) == {}
    assert answered(tmp_path).known([7])  # looking does not change the file


def test_what_nobody_expects_is_not_kept(tmp_path: Path) -> None:
    one = Answered(tmp_path)
    one.begin("this")
    one.keep({7: (RESULT, 3)}, told=5)
    assert one.known([7]) == {}
    assert not (tmp_path / ANSWERED_FILE).exists()


def test_a_search_that_begins_anew_knows_nothing(tmp_path: Path) -> None:
    answered(tmp_path).keep({7: (RESULT, 3)}, told=5)
    assert answered(tmp_path, anew=True).known([7]) == {}
    assert answered(tmp_path).known([7]) == {}


def test_what_a_second_loss_finds_is_what_both_launches_kept(tmp_path: Path) -> None:
    answered(tmp_path).keep({7: (RESULT, 3), 8: (RESULT, 2)}, told=5)
    second = answered(tmp_path)
    second.keep({9: (FAILED, 1)}, told=8)
    assert answered(tmp_path).known(range(1, 20)) == {8: (RESULT, 2), 9: (FAILED, 1)}


def test_what_was_told_is_dropped(tmp_path: Path) -> None:
    one = answered(tmp_path)
    for index in range(2, 100):
        one.keep({index: (RESULT, 1)}, told=index - 1)
    assert len((tmp_path / ANSWERED_FILE).read_text().splitlines()) == 2


def test_quick_trials_are_not_worth_it(tmp_path: Path) -> None:
    quick = TrialResult(accuracy=0.5, seconds=LEAST_SECONDS / 2)
    answered(tmp_path).keep({7: (quick, 3)}, told=5)
    assert not (tmp_path / ANSWERED_FILE).exists()


def test_the_file_has_a_limit_and_keeps_what_is_told_first(tmp_path: Path) -> None:
    long = TrialResult(accuracy=None, error="x", traceback="é" * 10 * TRACEBACK_LIMIT)
    answered(tmp_path).keep(dict.fromkeys(range(2000, 1, -1), (long, 1)), told=1)
    size = (tmp_path / ANSWERED_FILE).stat().st_size
    assert LIMIT_BYTES - 10 * TRACEBACK_LIMIT < size <= LIMIT_BYTES
    known = answered(tmp_path).known(range(1, 2001))
    assert list(known) == list(range(2, 2 + len(known)))
    assert known[2][0].traceback == "é" * TRACEBACK_LIMIT


def test_a_search_without_a_folder_keeps_them_in_memory() -> None:
    one = answered(None)
    one.keep({7: (RESULT, 3)}, told=5)
    assert one.known([7]) == {7: (RESULT, 3)}
    assert answered(None).known([7]) == {}


def damaged(**changes: Any) -> bytes:
    result = {**vars(RESULT), **changes.pop("result", {})}
    return json.dumps(
        {"search": "this", "index": 7, "digest": "digest7", "rank": 1, "result": result, **changes}
    ).encode()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(b'{"search": "th', id="torn"),
        pytest.param(b"\xff\x00", id="no text"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(damaged(index="7"), id="index"),
        pytest.param(damaged(rank=None), id="rank"),
        pytest.param(damaged(result={"accuracy": None}), id="no accuracy and no error"),
        pytest.param(damaged(result={"unknown": 1}), id="a field of another version"),
        pytest.param(damaged(result={"rows": 3}), id="rows"),
    ],
)
def test_a_damaged_file_is_told_and_forgotten(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ANSWERED_FILE).write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        one = answered(tmp_path)
    assert one.known([7]) == {}
    assert "are measured again" in caplog.text
    one.keep({7: (RESULT, 1)}, told=2)
    assert answered(tmp_path).known([7])


def test_the_damage_of_the_test_above_is_what_it_says(tmp_path: Path) -> None:
    (tmp_path / ANSWERED_FILE).write_bytes(damaged())
    assert answered(tmp_path).known([7]) == {7: (RESULT, 1)}


def test_a_disk_that_takes_nothing_does_not_end_the_search(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = answered(tmp_path / "gone")
    with caplog.at_level(logging.WARNING):
        one.keep({7: (RESULT, 3)}, told=5)
    assert "are not kept" in caplog.text


def test_a_search_that_goes_on_in_series_uses_them(tmp_path: Path) -> None:
    answered(tmp_path).keep({2: (RESULT, 3)}, told=1)
    evaluated: list[Any] = []
    told: list[Told] = []

    def evaluate(payload: Any) -> TrialResult:
        evaluated.append(payload)
        return TrialResult(accuracy=0.0)

    def tell(one: Told) -> bool:
        told.append(one)
        return False

    Serial(evaluate, answered(tmp_path)).run(1, ["a", "b", "c"], tell)
    assert evaluated == ["a", "c"]
    assert [(t.index, t.rank, t.earlier) for t in told] == [(1, 0, False), (2, 3, True), (3, 0, False)]
    assert told[1].result == RESULT
