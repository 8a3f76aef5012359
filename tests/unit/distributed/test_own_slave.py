"""A slave in a thread of rank 0: it shares its master's process, and never leaves it waiting for ever."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from quantuner.api.trial import TrialResult
from quantuner.distributed.batch import Batch
from quantuner.distributed.communicator import RanksLostError
from quantuner.distributed.executors import Tell, Told
from quantuner.distributed.master import Master
from quantuner.distributed.own_slave import WithOwnSlave
from quantuner.distributed.protocol import Broken, Limits
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
    ranks = [threading.Thread(target=Slave(world.comm(rank), result).run) for rank in (1, 2)]
    for rank in ranks:
        rank.start()
    comm = WithOwnSlave(world.comm(0), result)
    assert list(comm.evaluators) == [1, 2, 0]
    told: list[Told] = []
    master = Master(comm)
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
    assert inner.receive() == (0, Broken("KeyError: 'bug'"))


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
