"""The executor contract: one suite for the serial executor and for a master with slaves.

| | serial | master, 1 to 5 slaves, any order of answers |
| --- | --- | --- |
| results are told in index order, each once, with the trial's own result | ✓ | ✓ |
| `tell` returning True ends the batch; nothing further is told | ✓ | ✓ |
| a failed trial is a result like any other | ✓ | ✓ |
| a batch after a decided one gets its own results | ✓ | ✓ |
| a trial that took two ranks with it in earlier launches is not evaluated again, and has failed | ✓ | ✓ |
| every slave ends on close, also after an error | | ✓ |

Ranks that die or hang, and trials that are divided, are in test_simulation.py and on real ranks in test_losses.py.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantuner.api.trial import TrialResult
from quantuner.distributed.executors import Executor, Serial, Told
from quantuner.distributed.losses import Losses
from quantuner.distributed.master import Master
from quantuner.distributed.slave import Slave
from tests.unit.distributed.in_memory import World


def undecided(told: Told) -> bool:
    return False


def measured(payload: int) -> TrialResult:
    """The trial of these tests: payload 13 fails, another one's accuracy is its own number."""
    if payload == 13:
        return TrialResult(accuracy=None, error="13 brings bad luck")
    return TrialResult(accuracy=float(payload), objectives={"performance": payload / 2})


@dataclass
class Bench:
    """An executor and what its ranks did."""

    executor: Executor
    evaluated: list[int] = field(default_factory=list)
    """Payloads, in whatever order they were evaluated."""
    served: dict[int, int] = field(default_factory=dict)
    """Slave to the number of its trials, once it has ended."""
    told: list[Told] = field(default_factory=list)

    def run(self, first: int, payloads: list[int], stop_at: int | None = None) -> bool:
        """Runs a batch and keeps what was told, deciding the search at index `stop_at`."""

        def tell(told: Told) -> bool:
            self.told.append(told)
            return told.index == stop_at

        return self.executor.run(first, payloads, tell)

    @property
    def indices(self) -> list[int]:
        return [told.index for told in self.told]


@contextmanager
def bench(slaves: int, seed: int = 0, lost: Mapping[int, int] | None = None) -> Iterator[Bench]:
    """Serial for no slaves; `lost` are ranks lost with trials before. Afterwards it is closed and every slave ended."""
    evaluated: list[int] = []

    def evaluate(payload: int) -> TrialResult:
        evaluated.append(payload)
        return measured(payload)

    losses = Losses()
    for index, count in (lost or {}).items():
        losses.record(index, count)
    if slaves == 0:
        yield Bench(Serial(evaluate, losses=losses), evaluated)
        return
    world = World(slaves + 1, seed)
    served: dict[int, int] = {}

    def slave(rank: int) -> None:
        served[rank] = Slave(world.comm(rank), evaluate).run()
        world.end(rank)

    threads = [threading.Thread(target=slave, args=(rank,)) for rank in range(1, slaves + 1)]
    for thread in threads:
        thread.start()
    master = Master(world.comm(0), losses=losses)
    try:
        yield Bench(master, evaluated, served)
    finally:
        master.close()
        for thread in threads:
            thread.join()


WORLDS = [
    pytest.param(0, 0, id="serial"),
    pytest.param(1, 0, id="one slave"),
    pytest.param(2, 1, id="two slaves"),
    pytest.param(3, 2, id="three slaves"),
    pytest.param(5, 3, id="five slaves"),
]


@pytest.mark.parametrize(("slaves", "seed"), WORLDS)
class TestContract:
    def test_results_are_told_in_index_order_with_the_trials_own_result(self, slaves: int, seed: int) -> None:
        with bench(slaves, seed) as b:
            assert b.run(7, [30, 10, 20, 50, 40]) is False
        assert b.indices == [7, 8, 9, 10, 11]
        assert [told.result for told in b.told] == [measured(payload) for payload in (30, 10, 20, 50, 40)]

    def test_every_trial_is_evaluated_once(self, slaves: int, seed: int) -> None:
        with bench(slaves, seed) as b:
            b.run(1, list(range(9)))
        assert sorted(b.evaluated) == list(range(9))

    def test_a_decision_ends_the_batch(self, slaves: int, seed: int) -> None:
        with bench(slaves, seed) as b:
            assert b.run(1, list(range(20, 40)), stop_at=3) is True
        assert b.indices == [1, 2, 3]
        assert slaves or len(b.evaluated) == 3

    def test_no_trial_follows_the_batchs_last(self, slaves: int, seed: int) -> None:
        with bench(slaves, seed) as b:
            b.run(1, [1, 2, 3])
            assert sorted(b.evaluated) == [1, 2, 3]
            b.run(4, [4])
        assert b.indices == [1, 2, 3, 4]

    def test_an_empty_batch_decides_nothing(self, slaves: int, seed: int) -> None:
        with bench(slaves, seed) as b:
            assert b.run(5, []) is False
        assert b.told == []

    def test_a_failed_trial_is_a_result_like_any_other(self, slaves: int, seed: int) -> None:
        with bench(slaves, seed) as b:
            b.run(1, [12, 13, 14])
        assert [told.result.error for told in b.told] == ["", "13 brings bad luck", ""]

    def test_a_batch_after_a_decided_one_gets_its_own_results(self, slaves: int, seed: int) -> None:
        with bench(slaves, seed) as b:
            b.run(1, list(range(100, 120)), stop_at=2)
            b.run(3, list(range(200, 208)))
        assert b.indices == list(range(1, 11))
        assert [told.result.accuracy for told in b.told[2:]] == [float(payload) for payload in range(200, 208)]

    def test_a_trial_that_took_two_ranks_with_it_before_is_not_evaluated_again(self, slaves: int, seed: int) -> None:
        with bench(slaves, seed, {1: 1, 2: 2, 4: 0}) as b:
            b.run(1, [10, 20, 30, 40])
        assert sorted(b.evaluated) == [10, 30, 40]
        error = "2 ranks were lost with this trial, the last one was lost; look for an out-of-memory kill of its pod"
        assert [told.result.error.startswith(error) for told in b.told] == [False, True, False, False]
        assert [told.result.accuracy for told in b.told] == [10, None, 30, 40]

    def test_an_error_in_telling_reaches_the_caller_and_the_slaves_end(self, slaves: int, seed: int) -> None:
        def broken(told: Told) -> bool:
            raise OSError("disk full")

        with bench(slaves, seed) as b, pytest.raises(OSError, match="disk full"):
            b.executor.run(1, [1, 2, 3, 4], broken)
        assert len(b.served) == slaves

    def test_closing_twice_is_closing_once(self, slaves: int, seed: int) -> None:
        with bench(slaves, seed) as b:
            b.run(1, [1])
            b.executor.close()
            b.executor.close()
        assert sum(b.served.values()) == (1 if slaves else 0)


@settings(max_examples=150, deadline=None)
@given(
    slaves=st.integers(1, 5),
    seed=st.integers(0, 2**32),
    batches=st.lists(st.integers(0, 9), max_size=4),
    stop_at=st.none() | st.integers(1, 12),
)
def test_whatever_the_order_of_answers_the_same_is_told_as_in_series(
    slaves: int, seed: int, batches: list[int], stop_at: int | None
) -> None:
    def search(b: Bench) -> list[tuple[int, TrialResult]]:
        first = 1
        for size in batches:
            if b.run(first, list(range(first + 5, first + 5 + size)), stop_at):
                break
            first += size
        return [(told.index, told.result) for told in b.told]

    with bench(0) as serial:
        expected = search(serial)
    with bench(slaves, seed) as parallel:
        assert search(parallel) == expected
        assert all(0 <= told.running <= slaves and 1 <= told.rank <= slaves for told in parallel.told)
    assert sum(parallel.served.values()) == len(parallel.evaluated) >= len(set(parallel.evaluated))


def test_slaves_share_the_work() -> None:
    with bench(4, seed=1) as b:
        b.run(1, list(range(40)))
    assert sum(b.served.values()) == 40
    assert all(b.served.values())


def test_a_master_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one slave, but the world has 1 rank; search serially"):
        Master(World(1).comm(0))
