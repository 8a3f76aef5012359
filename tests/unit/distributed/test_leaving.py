"""A rank that leaves a search before its end, as slave or as master, and what the next search finds then."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.trial import TrialResult
from quantuner.distributed.communicator import Communicator, Solo
from quantuner.distributed.executors import Told
from quantuner.distributed.leaving import forget, leaving
from quantuner.distributed.master import Master
from quantuner.distributed.slave import Slave
from tests.unit.distributed.in_memory import World

RANKS = 3
TRIALS = range(4)
ERROR = SearchError(Failure.STRATEGY_RAISED, "no hook", "its traceback")


def search(comm: Communicator) -> Any:
    """Accuracies on rank 0, how many trials were evaluated on another."""
    if comm.rank:
        return Slave(comm, lambda payload: TrialResult(accuracy=float(payload))).run()
    told: list[Any] = []

    def tell(one: Told) -> bool:
        told.append(one.result.accuracy)
        return False

    master = Master(comm)
    try:
        master.run(1, TRIALS, tell)
    finally:
        master.close()
    return told


def on_ranks(step: Callable[[Communicator], Any]) -> list[Any]:
    """What `step` returns or raises on each rank."""
    world = World(RANKS)
    found: list[Any] = [None] * RANKS

    def take(rank: int) -> None:
        try:
            found[rank] = step(world.comm(rank))
        except Exception as error:
            found[rank] = error
        world.end(rank)

    threads = [threading.Thread(target=take, args=(rank,)) for rank in range(RANKS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def left(comm: Communicator, failing: int, *, searches: bool) -> Any:
    """The error with which a rank leaves, or what it found."""
    try:
        with leaving(comm):
            if searches or comm.rank != failing:
                found = search(comm)
            if comm.rank == failing:
                raise ERROR
            return found
    except SearchError as error:
        return error.message, error.traceback


FAILING = pytest.mark.parametrize("failing", range(RANKS))
SEARCHES = pytest.mark.parametrize("searches", [False, True], ids=["before it searches", "after"])


def test_a_slaves_error_is_the_masters_and_the_other_slave_leaves() -> None:
    of_0, of_1, of_2 = on_ranks(lambda comm: left(comm, 1, searches=False))
    assert of_1 == ("no hook", "its traceback")
    assert of_0 == ("no hook (on rank 1)", "its traceback")
    assert isinstance(of_2, int)


def test_slaves_leave_where_the_master_never_comes() -> None:
    assert on_ranks(lambda comm: left(comm, 0, searches=False)) == [("no hook", "its traceback"), 0, 0]


@FAILING
def test_an_error_after_the_search_undoes_nothing(failing: int) -> None:
    found = on_ranks(lambda comm: left(comm, failing, searches=True))
    assert found[failing] == ("no hook", "its traceback")
    assert found[0] == [0.0, 1.0, 2.0, 3.0] or failing == 0


@FAILING
@SEARCHES
def test_what_was_sent_is_not_taken_for_the_next_search_s(failing: int, *, searches: bool) -> None:
    def again(comm: Communicator) -> Any:
        left(comm, failing, searches=searches)
        comm.broadcast(comm.gather(None))
        forget(comm)
        return search(comm)

    told, *served = on_ranks(again)
    assert told == [0.0, 1.0, 2.0, 3.0]
    assert sum(served) >= len(TRIALS)


def test_what_is_no_error_of_a_search_is_told_to_nobody() -> None:
    """The process ends, and with it the job."""

    def step(comm: Communicator) -> Any:
        if comm.rank:
            return comm.broadcast(None), comm.pending()
        with pytest.raises(KeyError), leaving(comm):
            raise KeyError
        return comm.broadcast("over"), None

    assert on_ranks(step) == [("over", None)] * RANKS


def test_alone_there_is_nobody_to_tell() -> None:
    with pytest.raises(SearchError, match="no hook"), leaving(Solo()):
        raise ERROR
    forget(Solo())
