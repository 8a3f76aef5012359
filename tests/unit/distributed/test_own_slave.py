"""A slave in a thread of rank 0: it shares its master's process, and never leaves it waiting for ever."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from quantuner.api.trial import TrialResult
from quantuner.distributed.batch import Batch
from quantuner.distributed.communicator import RanksLostError
from quantuner.distributed.executors import Tell, Told
from quantuner.distributed.master import Master
from quantuner.distributed.own_slave import WithOwnSlave
from quantuner.distributed.protocol import Begins, Broken, Limits, Task
from quantuner.distributed.slave import Slave
from tests.unit.distributed.in_memory import World

PATIENCE = 30.0  # of a test that would hang else; never waited for where it passes


def result(payload: int) -> TrialResult:
    return TrialResult(accuracy=float(payload))


def undecided(told: Told) -> bool:
    return False


def keep(told: list[Told]) -> Tell:
    def tell(one: Told) -> bool:
        told.append(one)
        return False

    return tell


def works(world: World, rank: int) -> None:
    """A slave that ends as a process does, so that its master waits for nothing more."""
    Slave(world.comm(rank), result).run()
    world.end(rank)


def finishes(what: Any) -> Any:
    """What it returns; fails where it never does."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(what())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert found, "it never ends"
    return found[0]


def test_it_evaluates_beside_the_others_which_come_first() -> None:
    world = World(3)
    ranks = [threading.Thread(target=works, args=(world, rank)) for rank in (1, 2)]
    for rank in ranks:
        rank.start()
    comm = WithOwnSlave(world.comm(0), result)
    assert list(comm.evaluators) == [1, 2, 0]
    told: list[Told] = []
    master = Master(comm, limits=Limits(slow=1e9))  # none takes over what another has
    assert master.run(1, list(range(1, 4)), keep(told)) is False
    master.close()
    for rank in ranks:
        rank.join()
    assert [(one.index, one.result) for one in told] == [(index, result(index)) for index in (1, 2, 3)]
    assert Counter(one.rank for one in told) == {0: 1, 1: 1, 2: 1}


def test_alone_it_does_the_whole_search() -> None:
    comm = WithOwnSlave(World(1).comm(0), result)
    told: list[Told] = []
    master = Master(comm)
    master.run(1, [1, 2, 3], keep(told))
    master.run(4, [4], keep(told))
    master.close()
    comm._thread.join(PATIENCE)
    assert not comm._thread.is_alive()
    assert [one.rank for one in told] == [0, 0, 0, 0]
    assert comm.slave.count == 4


def test_a_decided_batch_returns_when_its_slave_has_left_the_trial() -> None:
    inside = threading.Event()
    left = threading.Event()

    def evaluate(payload: int) -> TrialResult:
        if payload == 2:
            inside.set()
            try:
                while True:
                    comm.slave.check()
            finally:
                left.set()
        return result(payload)

    def decide(told: Told) -> bool:
        assert inside.wait(PATIENCE)
        return True

    comm = WithOwnSlave(World(1).comm(0), evaluate)
    master = Master(comm)
    assert master.run(1, [1, 2], decide) is True
    assert left.is_set()
    master.close()


def test_an_error_in_it_ends_the_search_at_once() -> None:
    def evaluate(payload: int) -> TrialResult:
        raise KeyError("bug")

    def search() -> None:
        master = Master(WithOwnSlave(World(1).comm(0), evaluate), limits=Limits(grace=1e9))
        try:
            master.run(1, [1], undecided)
        finally:
            master.close()

    error = finishes(search)
    assert isinstance(error, RuntimeError)
    assert "the slave beside the master has ended: KeyError: 'bug'" in str(error)


def test_whoever_waits_for_it_is_told_that_it_has_ended() -> None:
    """Also while it ends: its thread lives still when it says so."""
    go = threading.Event()

    def evaluate(payload: int) -> TrialResult:
        go.wait(PATIENCE)
        raise KeyError("bug")

    inner = World(1).comm(0)
    waiting = threading.Event()
    comm = WithOwnSlave(inner, evaluate)
    within = comm._within
    wait_for = within._changed.wait_for

    def announced(predicate: Any, timeout: float | None = None) -> Any:
        waiting.set()
        return wait_for(predicate, timeout)

    within._changed.wait_for = announced  # type: ignore[method-assign]
    end = within.end

    def slow_end() -> None:
        end()
        assert waiting.wait(PATIENCE)
        done.wait(PATIENCE)  # the thread lives on until `quiesce` has returned

    within.end = slow_end  # type: ignore[method-assign]
    done = threading.Event()
    master = Master(comm)
    master._dispatch.offer([1])
    master._give(Batch(1, [1], None, next=1))
    go.set()

    def quiesce() -> str:
        comm.quiesce()
        return "returned"

    try:
        assert finishes(quiesce) == "returned"
    finally:
        done.set()
    begins = Begins(master._epoch, Task(1, batch=1))
    assert [inner.receive(), inner.receive()] == [(0, begins), (0, Broken("KeyError: 'bug'"))]


def test_a_search_does_not_go_on_beside_a_slave_that_was_given_up() -> None:
    stuck = threading.Event()

    def evaluate(payload: int) -> TrialResult:
        stuck.wait()
        return result(payload)

    def search() -> None:
        comm = WithOwnSlave(World(1).comm(0), evaluate)
        Master(comm, limits=Limits(known=(0.0,), least=0.0, grace=0.0)).run(1, [1], undecided)

    error = finishes(search)
    assert isinstance(error, RanksLostError)
    assert error.ranks == (0,)
    assert "does not end" in str(error)
    stuck.set()


@pytest.mark.parametrize("decided", ["while it is at it", "after another rank was quicker"])
def test_a_decided_batch_does_not_wait_for_ever_for_a_trial_that_never_ends(decided: str) -> None:
    inside, stuck = threading.Event(), threading.Event()

    def evaluate(payload: int) -> TrialResult:
        if payload == 2:
            inside.set()
            stuck.wait()
        return result(payload)

    told: list[Told] = []
    limits = Limits(known=(1.0,), patience=0.0, least=1e9, grace=0.0)

    def decide(one: Told) -> bool:
        told.append(one)
        assert inside.wait(PATIENCE)
        limits.least = 0.0  # from here on it has taken too long
        return decided == "while it is at it" or one.index == 2

    def search() -> None:
        comm = WithOwnSlave(World(1).comm(0), evaluate)
        master = Master(comm, limits=limits)
        take = master._take

        def taken(batch: Batch | None, rank: int, message: Any) -> None:
            take(batch, rank, message)
            if decided != "while it is at it" and inside.wait(PATIENCE) and batch is not None:
                batch.answer(2, result(2), 1)
                master._cancel(master._dispatch.forget(2, comm.now()))

        master._take = taken  # type: ignore[method-assign]
        master.run(1, [1, 2], decide)

    error = finishes(search)
    stuck.set()
    assert isinstance(error, RanksLostError)
    assert error.ranks == (0,)
    assert "does not end" in str(error)
    assert [one.index for one in told] == ([1] if decided == "while it is at it" else [1, 2])


def test_what_is_still_owed_does_not_grow_with_the_search() -> None:
    world = World(2)
    rank = threading.Thread(target=works, args=(world, 1))
    rank.start()
    master = Master(world.comm(0))
    first = 1
    for _ in range(20):
        master.run(first, list(range(first, first + 10)), lambda one: one.index % 10 == 3)
        first += 3
    assert len(master._owed[1]) <= 2 * 10
    master.close()
    rank.join()
