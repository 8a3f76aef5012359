"""Steps that all ranks take together: all get the result, or all get the same error."""

from collections.abc import Callable
from typing import Any

import pytest

from quantuner.api.conditions import Failure
from quantuner.api.errors import InvalidResourceError, Problem, SearchError
from quantuner.distributed.communicator import Communicator, Solo
from quantuner.strategy.ranks import agreed, on_rank_0
from tests.unit.strategy.ranked import on_ranks

SIZES = pytest.mark.parametrize("size", [1, 2, 4])


def raising(error: BaseException) -> Any:
    raise error


def errors_of(answers: list[Any]) -> list[tuple[str, str]]:
    assert all(isinstance(answer, SearchError) for answer in answers)
    return [(answer.reason, answer.message) for answer in answers]


@SIZES
def test_every_rank_gets_its_own_result_where_none_fails(size: int) -> None:
    assert on_ranks(size, lambda comm: agreed(comm, lambda: 10 * comm.rank)) == [10 * rank for rank in range(size)]


@pytest.mark.parametrize(
    ("failing", "message"),
    [
        pytest.param({0}, "no 0", id="rank 0"),
        pytest.param({2}, "no 2 (on rank 2)", id="another rank"),
        pytest.param({1, 2}, "no 1 (on rank 1)", id="the lowest of several"),
        pytest.param({0, 1, 2}, "no 0", id="all"),
    ],
)
def test_where_a_rank_fails_all_raise_its_error(failing: set[int], message: str) -> None:
    def step(comm: Communicator) -> Any:
        error = SearchError(Failure.TASK_RAISED, f"no {comm.rank}", traceback=f"trace {comm.rank}")
        return agreed(comm, lambda: raising(error) if comm.rank in failing else None)

    answers = on_ranks(3, step)
    assert errors_of(answers) == [(Failure.TASK_RAISED, message)] * 3
    assert {answer.traceback for answer in answers} == {f"trace {min(failing)}"}


@pytest.mark.parametrize(
    ("error", "says"),
    [
        pytest.param(
            ValueError("odd"), r"^setting up raised at test_ranks.py:\d+ in raising: ValueError: odd", id="any"
        ),
        pytest.param(SystemExit(3), r"^setting up raised at test_ranks.py:\d+ in raising: SystemExit: 3", id="an exit"),
        pytest.param(PermissionError("no"), "^a file cannot be read or written: no; every rank needs", id="no file"),
        pytest.param(
            InvalidResourceError([Problem("spec.workers", "is 0")]),
            "^the resource cannot be read: spec.workers: is 0",
            id="a wrong resource",
        ),
    ],
)
def test_an_error_of_another_kind_says_where_it_comes_from_and_leaves_no_rank_waiting(
    error: BaseException, says: str
) -> None:
    def step(comm: Communicator) -> Any:
        return agreed(comm, lambda: raising(error) if comm.rank == 1 else None)

    answers = on_ranks(2, step)
    (reason, message), other = errors_of(answers)
    assert (reason, message) == other
    assert reason == Failure.INTERNAL_ERROR
    with pytest.raises(SearchError, match=f"{says}.*\\(on rank 1\\)$"):
        raise answers[0]


@SIZES
def test_a_step_of_rank_0_is_taken_once_and_gives_every_rank_the_result(size: int) -> None:
    taken: list[int] = []

    def take(rank: int) -> list[int]:
        taken.append(rank)
        return [1, 2]

    def step(comm: Communicator) -> list[int]:
        return on_rank_0(comm, lambda: take(comm.rank))

    assert on_ranks(size, step) == [[1, 2]] * size
    assert taken == [0]


def test_an_error_in_a_step_of_rank_0_is_every_ranks() -> None:
    error = SearchError(Failure.CALIBRATION_FAILED, "no data")
    answers = on_ranks(3, lambda comm: on_rank_0(comm, lambda: raising(error)))
    assert errors_of(answers) == [(Failure.CALIBRATION_FAILED, "no data")] * 3


@pytest.mark.parametrize("step", [agreed, on_rank_0])
def test_without_mpi_a_step_is_simply_taken(step: Callable[..., Any]) -> None:
    assert step(Solo(), lambda: 7) == 7
    with pytest.raises(SearchError, match=r"no data$"):
        step(Solo(), lambda: raising(SearchError(Failure.CALIBRATION_FAILED, "no data")))
