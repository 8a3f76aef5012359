"""A slave's side of the protocol: evaluates what it has, listens between trials and inside them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from quantuner.distributed.communicator import Communicator
from quantuner.distributed.differences import apply
from quantuner.distributed.executors import Evaluate, work_of
from quantuner.distributed.protocol import Assign, Base, Cancel, Done, End, Failed, Job, Left, Task, Work

logger = logging.getLogger(__name__)

HELD_SECONDS = 0.002
"""How long results may wait for each other, so that quick trials share a message."""


class AbandonedError(BaseException):
    """Breaks off a trial that no longer matters. No `Exception`, so that a user's code does not take it for its own."""


class Watchdog(Protocol):
    """Ends a process that is stuck."""

    def start(self, seconds: float) -> None: ...

    def stop(self) -> None: ...


class Slave:
    """One rank's loop."""

    def __init__(self, comm: Communicator, work: Evaluate | Work, watchdog: Watchdog | None = None) -> None:
        self._comm, self._work, self._watchdog = comm, work_of(work), watchdog
        self._base: Any = None
        self._epoch = 0
        self._jobs: deque[Job] = deque()
        self._seconds: float | None = None
        self._results: list[tuple[Task, Any]] = []
        self._sent = 0.0
        self._current: Task | None = None
        self._ended = False
        self._cancelled = False
        self.count = 0
        """Tasks that were evaluated to the end."""

    def run(self) -> int:
        """Until the master ends it; returns how many tasks it evaluated. Raises `RanksLostError` without a master."""
        while not self._ended:
            if self._jobs:
                self._hear()
            else:
                self._answer()
                received = self._comm.receive(source=0)
                if received is not None:
                    self._take(received[1])
                self._hear()
            if self._jobs and not self._ended:
                self._evaluate(self._jobs.popleft())
        self._comm.send(Left(self._epoch), to=0)
        return self.count

    def check(self) -> None:
        """Called inside a trial, between batches: raises `AbandonedError` where it no longer matters."""
        if self._current is None:
            return
        self._hear()
        if self._cancelled or self._ended:
            raise AbandonedError

    def _hear(self) -> None:
        while (message := self._comm.pending(source=0)) is not None:
            self._take(message[1])

    def _take(self, message: Any) -> None:
        if isinstance(message, Base):
            self._base, self._epoch = message.payload, message.epoch
        elif isinstance(message, Assign):
            self._jobs.extend(message.jobs)
            self._seconds = message.seconds
        elif isinstance(message, Cancel):
            self._jobs = deque(job for job in self._jobs if job.task not in message.tasks)
            self._cancelled = self._cancelled or self._current in message.tasks
        elif isinstance(message, End):
            self._ended, self._epoch = True, message.epoch
        else:
            raise TypeError(f"the master sent {message!r}, which is no message of the protocol")

    def _evaluate(self, job: Job) -> None:
        if job.alone:
            self._answer()
        self._current, self._cancelled = job.task, False
        payload = apply(self._base, job.payload)
        if self._watchdog is not None and self._seconds is not None:
            self._watchdog.start(self._seconds)
        try:
            result = self._measured(job.task, payload)
        except AbandonedError:
            return
        finally:
            self._current = None
            if self._watchdog is not None:
                self._watchdog.stop()
        self.count += 1
        self._results.append((job.task, result))
        if job.alone or self._comm.now() - self._sent >= HELD_SECONDS:
            self._answer()

    def _measured(self, task: Task, payload: Any) -> Any:
        if task.parts == 1:
            return self._work.evaluate(payload)
        if self._work.evaluate_part is None:
            raise ValueError(f"trial {task.index} came in {task.parts} shares, but this rank evaluates whole ones only")
        try:
            return self._work.evaluate_part(payload, task.part, task.parts)
        except Exception as error:  # the trial is evaluated whole then, and says what is wrong in the usual words
            logger.warning("share %d of trial %d failed: %s", task.part, task.index, error)
            return Failed(str(error))

    def _answer(self) -> None:
        if self._results:
            self._comm.send(Done(self._epoch, tuple(self._results)), to=0)
            self._results.clear()
        self._sent = self._comm.now()


def serve(
    comm: Communicator,
    work: Evaluate | Work,
    watchdog: Watchdog | None = None,
    listen: Callable[[Callable[[], None]], None] | None = None,
) -> int:
    """A slave's loop until the master ends it; returns how many tasks that were.

    `listen` is given the function to be called between a trial's batches.
    """
    slave = Slave(comm, work, watchdog)
    if listen is not None:
        listen(slave.check)
    return slave.run()
