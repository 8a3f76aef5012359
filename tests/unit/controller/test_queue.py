"""The schedule with a clock of its own; the queue around it with a clock that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from quantuner.api.errors import QuantunerError
from quantuner.controller.queue import (
    JITTER,
    MOVED,
    PACE_SECONDS,
    PROGRESS_PACE_SECONDS,
    RETRY_BASE_SECONDS,
    RETRY_CAP_SECONDS,
    SETTLE_SECONDS,
    STUCK_SECONDS,
    TOLD,
    Queue,
    Schedule,
)


def schedule() -> Schedule[str]:
    return Schedule(jitter=lambda: 0.0)


def test_gives_a_key_once_however_often_it_was_added() -> None:
    s = schedule()
    for _ in range(3):
        s.add("a", 1.0)
    assert [s.take(1.0), s.take(1.0)] == ["a", None]


def test_gives_keys_in_the_order_in_which_they_are_due() -> None:
    s = schedule()
    s.add("late", 2.0)
    s.add("early", 1.0)
    assert [s.take(3.0), s.take(3.0)] == ["early", "late"]


def test_a_key_is_not_given_before_it_is_due() -> None:
    s = schedule()
    s.add("a", 5.0)
    assert s.take(4.9) is None
    assert s.next_due() == 5.0
    assert s.take(5.0) == "a"


def test_the_earlier_of_two_times_counts() -> None:
    s = schedule()
    s.add("a", 300.0)
    s.add("a", 1.0)
    s.add("a", 200.0)
    assert s.take(1.0) == "a"
    s.done("a", 1.0, None)
    assert s.take(1000.0) is None


def test_a_key_is_never_on_two_workers_and_comes_back_when_it_was_added_meanwhile() -> None:
    s = schedule()
    s.add("a", 0.0)
    assert s.take(0.0) == "a"
    s.add("a", 1.0)
    assert s.take(2.0) is None
    s.done("a", 3.0, after=300.0)
    assert s.take(3.0) == "a"


def test_others_are_served_while_a_key_is_worked_on() -> None:
    s = schedule()
    s.add("a", 0.0)
    s.take(0.0)
    s.add("a", 1.0)
    s.add("b", 2.0)
    assert s.take(2.0) == "b"


def test_after_is_when_it_comes_again_and_none_is_never() -> None:
    s = schedule()
    s.add("a", 0.0)
    s.take(0.0)
    s.done("a", 10.0, after=5.0)
    assert (s.take(14.9), s.take(15.0)) == (None, "a")
    s.done("a", 20.0, after=None)
    assert s.next_due() is None


def test_delays_double_up_to_a_cap_and_start_anew_after_success() -> None:
    s = schedule()
    s.add("a", 0.0)
    delays = []
    now = 0.0
    for _ in range(10):
        assert s.take(now) == "a"
        delays.append(s.failed("a", now))
        now += delays[-1]
    assert delays[:3] == [RETRY_BASE_SECONDS, 2 * RETRY_BASE_SECONDS, 4 * RETRY_BASE_SECONDS]
    assert delays[-1] == RETRY_CAP_SECONDS
    assert s.take(now) == "a"
    s.done("a", now, after=0.0)
    s.take(now)
    assert s.failed("a", now) == RETRY_BASE_SECONDS


def test_jitter_only_adds() -> None:
    s: Schedule[str] = Schedule(jitter=lambda: 1.0)
    s.add("a", 0.0)
    s.take(0.0)
    assert s.failed("a", 0.0) == RETRY_BASE_SECONDS * (1 + JITTER)


def test_an_event_does_not_wait_for_the_retry() -> None:
    s = schedule()
    s.add("a", 0.0)
    s.take(0.0)
    s.failed("a", 0.0)
    s.add("a", 0.1)
    assert s.take(0.1) == "a"


def test_a_key_that_is_woken_all_the_time_is_given_at_its_pace() -> None:
    s = schedule()
    s.wake("a", 0.0)
    assert s.next_due() == SETTLE_SECONDS
    given = []
    for tick in range(200):
        now = tick / 100
        s.wake("a", now)
        if s.take(now) is not None:
            given.append(now)
            s.done("a", now, after=300.0)
    assert given == pytest.approx([0.1, 0.6, 1.1, 1.6], abs=0.011)


def test_what_can_wait_longer_does_not_keep_back_what_cannot() -> None:
    s = schedule()
    s.wake("a", 0.0)
    s.take(1.0)
    s.done("a", 1.0, after=300.0)
    s.wake("a", 1.5, TOLD)
    assert s.take(2.9) is None
    s.wake("a", 2.9)
    assert s.take(3.0) == "a"


def test_the_pace_is_that_of_whole_looks_whatever_happens_in_them() -> None:
    s = schedule()
    given: list[float] = []
    ends = 0.0
    for tick in range(1000):
        now = tick / 100
        s.wake("a", now, TOLD)
        if given and now == ends:
            s.done("a", now, after=300.0)
        if s.take(now) is not None:
            given.append(now)
            ends = (tick + 15) / 100
    assert given == pytest.approx([0.1 + n * (0.15 + PROGRESS_PACE_SECONDS) for n in range(5)], abs=0.02)


def test_what_happens_in_a_look_is_looked_at_though_the_key_seems_gone() -> None:
    s = schedule()
    s.wake("a", 0.0)
    s.take(1.0)
    s.wake("a", 1.1)
    s.done("a", 1.2, after=None)
    assert s.take(1.2 + SETTLE_SECONDS) == "a"


def test_a_key_that_fails_backs_off_whatever_its_search_tells_but_not_from_its_user() -> None:
    s = schedule()
    s.wake("a", 0.0)
    looks, now = [], 0.0
    for tick in range(6500):
        now = tick / 100
        s.wake("a", now, MOVED if tick % 2 else TOLD)
        if s.take(now) is not None:
            looks.append(now)
            s.failed("a", now)
    assert len(looks) == 8, "0.1 and then after 0.5, 1, 2, 4, 8, 16, 32 s"
    s.wake("a", now)
    assert s.take(now + SETTLE_SECONDS) == "a"
    s.failed("a", now + 1)
    s.wake("a", now + 1)
    assert s.take(now + 1 + PACE_SECONDS) == "a"


def test_the_first_look_at_a_key_is_not_paced() -> None:
    s = schedule()
    s.wake("a", 0.0)
    s.take(1.0)
    s.done("a", 1.0, after=None)
    s.wake("a", 1.0)
    assert s.take(1.0 + SETTLE_SECONDS) == "a"


def test_depth_counts_keys_that_wait_for_a_worker() -> None:
    s = schedule()
    assert s.depth(0.0) == 0
    for key, at in (("a", 0.0), ("b", 1.0), ("later", 99.0)):
        s.add(key, at)
    assert s.depth(1.0) == 2
    assert s.longest_wait(3.0) == 3.0
    s.take(1.0)
    s.add("a", 1.0)
    assert s.depth(1.0) == 1
    assert s.longest_wait(3.0) == 2.0
    s.take(1.0)
    assert s.longest_wait(3.0) == 0.0


def test_the_slowest_worker_is_known() -> None:
    s = schedule()
    assert s.oldest_active(9.0) == 0.0
    s.add("a", 0.0)
    s.take(1.0)
    assert s.oldest_active(9.0) == 8.0


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Recorder:
    def __init__(self) -> None:
        self.results: list[bool] = []

    def reconciled(self, success: bool, seconds: float) -> None:
        assert seconds >= 0
        self.results.append(success)


class Bench:
    """A queue in its loop, and what it did."""

    def __init__(self, work: Callable[[str], Awaitable[float | None]], workers: int = 2) -> None:
        self.clock = Clock()
        self.recorder = Recorder()
        self.queue = Queue(work, self.recorder, workers, self.clock)

    async def settle(self) -> None:
        """Moves the clock past every settling delay and lets the workers run."""
        self.clock.now += 1000.0
        self.queue.add("tick")
        self.clock.now += 1.0
        self.queue.add("tick")
        for _ in range(20):
            await asyncio.sleep(0)


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def wrapped() -> None:
        await body()

    asyncio.run(wrapped())


def test_works_on_what_was_added_and_reports() -> None:
    async def body() -> None:
        seen: list[str] = []

        async def work(key: str) -> float | None:
            seen.append(key)
            return None

        bench = Bench(work)
        bench.queue.add("a")
        bench.queue.add("a")
        await bench.settle()
        await bench.queue.close()
        assert seen.count("a") == 1
        assert set(bench.recorder.results) == {True}

    run(body)


@pytest.mark.parametrize("error", [QuantunerError("the API server is away"), ZeroDivisionError("ours")])
def test_an_error_in_one_key_stops_neither_the_worker_nor_other_keys(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        async def work(key: str) -> float | None:
            if key == "bad":
                raise error
            return None

        bench = Bench(work, workers=1)
        bench.queue.add("bad")
        await bench.settle()
        await bench.settle()
        stuck = bench.queue.is_stuck()
        await bench.queue.close()
        assert {True, False} == set(bench.recorder.results)
        assert not stuck
        assert str(error) in caplog.text

    run(body)


def test_a_worker_that_hangs_is_noticed() -> None:
    async def body() -> None:
        forever = asyncio.Event()

        async def work(key: str) -> float | None:
            await forever.wait()
            return None

        bench = Bench(work)
        bench.queue.add("a")
        await bench.settle()
        assert not bench.queue.is_stuck()
        bench.clock.now += STUCK_SECONDS + 1
        assert bench.queue.is_stuck()
        await bench.queue.close()

    run(body)


def test_a_dead_worker_is_noticed() -> None:
    async def body() -> None:
        async def work(key: str) -> float | None:
            raise asyncio.CancelledError

        bench = Bench(work, workers=1)
        bench.queue.add("a")
        await bench.settle()
        assert bench.queue.is_stuck()
        await bench.queue.close()

    run(body)
