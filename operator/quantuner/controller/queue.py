"""One queue of keys: each key once, never on two workers, retried with growing delays."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from quantuner.api.errors import QuantunerError

logger = logging.getLogger(__name__)

RETRY_BASE_SECONDS = 0.5
RETRY_CAP_SECONDS = 60.0
JITTER = 0.2  # fraction: keys that failed together must not come back together
# Events of a burst (a journal line, then its pod, then its MPIJob) are answered by one look.
SETTLE_SECONDS = 0.1
PACE_SECONDS = 0.5
# What a search of short trials tells changes many times a second; its status need not.
PROGRESS_PACE_SECONDS = 2.0
STUCK_SECONDS = 600.0  # a reconcile is some fifteen requests of at most 30 s, its writes one after the other

K = TypeVar("K")


class Wake(NamedTuple):
    """What kind of event asks for a look."""

    pace: float
    """Seconds from the end of the last look, at least."""
    patient: bool
    """Whether it waits for the retry of what failed."""


CHANGED = Wake(PACE_SECONDS, patient=False)
"""The resource itself, by which somebody may have mended what failed."""
MOVED = Wake(PACE_SECONDS, patient=True)
"""What belongs to it."""
TOLD = Wake(PROGRESS_PACE_SECONDS, patient=True)
"""What its search writes while it goes on."""


class Schedule(Generic[K]):
    """When which key is due. Knows no clock and no loop: times are seconds that the caller gives."""

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._active: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._ended: dict[K, float] = {}
        self._retry: dict[K, float] = {}
        """When a key that failed is tried again."""
        self._woken: dict[K, set[Wake]] = {}
        """What happened to a key while it was worked on."""

    def wake(self, key: K, now: float, why: Wake = CHANGED) -> None:
        """Something happened to it: due when a burst has settled, at the pace of what it was."""
        if key in self._active:  # paced from the end of this look, which may not have seen it
            self._woken.setdefault(key, set()).add(why)
            return
        at = max(now + SETTLE_SECONDS, self._ended.get(key, -math.inf) + why.pace)
        self.add(key, max(at, self._retry.get(key, -math.inf)) if why.patient else at)

    def add(self, key: K, at: float) -> None:
        """Due at `at`, or earlier where it was due earlier already."""
        if at < self._due.get(key, math.inf):
            self._due[key] = at
            heapq.heappush(self._heap, (at, next(self._order), key))

    def take(self, now: float) -> K | None:
        """A due key that nobody works on; `done` must follow."""
        while self._heap and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == at and key not in self._active:
                del self._due[key]
                self._active[key] = now
                return key
        return None

    def done(self, key: K, now: float, after: float | None) -> None:
        """It went well; None forgets the key until it is added again."""
        self._failures.pop(key, None)
        self._retry.pop(key, None)
        self._release(key)
        if after is None:
            self._ended.pop(key, None)
        else:
            self._ended[key] = now
            self.add(key, now + self._spread(after))
        self._wake_again(key, now)

    def failed(self, key: K, now: float) -> float:
        """It is tried again after the returned seconds, or earlier where an event asks for it."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        self._release(key)
        delay = self._spread(min(RETRY_CAP_SECONDS, RETRY_BASE_SECONDS * 2.0 ** min(count, 30)))
        self._ended[key] = now
        self._retry[key] = now + delay
        self.add(key, now + delay)
        self._wake_again(key, now)
        return delay

    def _release(self, key: K) -> None:
        del self._active[key]
        if key in self._due:  # added while it was worked on: `take` may have dropped its heap entry
            heapq.heappush(self._heap, (self._due[key], next(self._order), key))

    def _wake_again(self, key: K, now: float) -> None:
        for why in self._woken.pop(key, ()):
            self.wake(key, now, why)

    def _spread(self, delay: float) -> float:
        return delay * (1.0 + JITTER * self._jitter())

    def next_due(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def depth(self, now: float) -> int:
        """Keys that wait for a worker. May be called from another thread."""
        return len(self._waits(now))

    def longest_wait(self, now: float) -> float:
        """Seconds since the one of them was due that has waited longest. May be called from another thread."""
        return max(self._waits(now), default=0.0)

    def _waits(self, now: float) -> list[float]:
        return [now - at for key, at in list(self._due.items()) if at <= now and key not in self._active]

    def oldest_active(self, now: float) -> float:
        """Seconds for which the slowest worker has been busy with its key."""
        return max((now - since for since in self._active.values()), default=0.0)


class Recorder(Protocol):
    """Hears of every reconcile that ended."""

    def reconciled(self, success: bool, seconds: float) -> None: ...


class Queue(Generic[K]):
    """Runs `work` for each key that is added, `workers` at a time."""

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        recorder: Recorder,
        workers: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work = work
        self._recorder = recorder
        self._clock = clock
        self._schedule: Schedule[K] = Schedule()
        self._wake = asyncio.Event()
        self._tasks = [asyncio.create_task(self._serve(), name=f"reconcile-{i}") for i in range(workers)]

    def add(self, key: K, why: Wake = CHANGED) -> None:
        """Something happened to it."""
        self._schedule.wake(key, self._clock(), why)
        self._wake.set()

    def depth(self) -> int:
        return self._schedule.depth(self._clock())

    def longest_wait(self) -> float:
        return self._schedule.longest_wait(self._clock())

    def is_stuck(self) -> bool:
        """A worker has died or hangs: only a restart of the process helps."""
        dead = any(task.done() for task in self._tasks)
        return dead or self._schedule.oldest_active(self._clock()) > STUCK_SECONDS

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self) -> None:
        while True:
            key = self._schedule.take(self._clock())
            if key is None:
                await self._sleep()
            else:
                await self._reconcile(key)
                self._wake.set()  # the key may be due again already, and the others sleep

    async def _sleep(self) -> None:
        due = self._schedule.next_due()
        self._wake.clear()
        try:
            async with asyncio.timeout(None if due is None else max(0.0, due - self._clock())):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _reconcile(self, key: K) -> None:
        started = self._clock()
        try:
            after = await self._work(key)
        except QuantunerError as error:
            delay = self._schedule.failed(key, self._clock())
            logger.warning("%s: %s; again in %.1f s", key, error, delay)
        except Exception:  # a mistake of ours in one resource must not stop the others
            delay = self._schedule.failed(key, self._clock())
            logger.exception("%s: unexpected; again in %.1f s", key, delay)
        else:
            self._schedule.done(key, self._clock(), after)
            self._recorder.reconciled(True, self._clock() - started)
            return
        self._recorder.reconciled(False, self._clock() - started)
