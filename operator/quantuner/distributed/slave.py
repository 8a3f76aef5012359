"""A slave's side of the protocol: evaluates what it has, listens between trials and inside them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from quantuner.api.errors import AbandonedError
from quantuner.distributed.communicator import Messages
from quantuner.distributed.differences import apply
from quantuner.distributed.executors import Evaluate, work_of
from quantuner.distributed.protocol import (
    Abandoned,
    Answer,
    Assign,
    Base,
    Begins,
    Cancel,
    Done,
    End,
    Failed,
    Job,
    Left,
    Pace,
    Task,
    Work,
)

logger = logging.getLogger(__name__)

HELD_SECONDS = 0.002
"""How long results may wait for each other, and messages for this rank, where trials are quick: what there is one of
for each message is then done for many trials."""


class Watchdog(Protocol):
    """Ends a process that is stuck."""

    def start(self, seconds: float) -> None: ...

    def stop(self) -> None: ...


class Slave:
    """One rank's loop."""

    def __init__(self, comm: Messages, work: Evaluate | Work, watchdog: Watchdog | None = None) -> None:
        self._comm, self._work, self._watchdog = comm, work_of(work), watchdog
        self._base: Any = None
        self._epoch = 0
        self._jobs: deque[Job | Task] = deque()
        """A task alone is one that is only to be answered: it was cancelled, and the master awaits word in order."""
        self._paces: Mapping[str, Pace] = {}
        self._answers: list[Answer] = []
        self._sent = self._heard = 0.0
        self._current: Task | None = None
        self._ended = False
        self._cancelled = False
        self.count = 0
        """Tasks that were evaluated to the end."""

    def run(self) -> int:
        """Until the master ends it; returns how many tasks it evaluated. Raises `RanksLostError` without a master."""
        while not self._ended:
            if not self._jobs:
                self._answer()
                received = self._comm.receive(source=0)
                if received is not None:
                    self._take(received[1])
                self._hear()
            elif self._comm.now() - self._heard >= HELD_SECONDS:
                self._hear()
            if self._jobs and not self._ended:
                self._do(self._jobs.popleft())
        self._comm.send(Left(self._epoch), to=0)
        return self.count

    def check(self) -> None:
        """Called inside a trial, between batches: raises `AbandonedError` where it no longer matters."""
        if self._current is None:
            return
        if self._answers and self._comm.now() - self._sent >= HELD_SECONDS:  # a quick trial's, before a slow one
            self._answer()
        self._hear()
        if self._cancelled or self._ended:
            raise AbandonedError

    def _hear(self) -> None:
        while (message := self._comm.pending(source=0)) is not None:
            self._take(message[1])
        self._heard = self._comm.now()

    def _take(self, message: Any) -> None:
        if isinstance(message, Base):
            self._base, self._epoch = message.payload, message.epoch
        elif isinstance(message, Assign):
            self._jobs.extend(message.jobs)
            self._paces = message.paces
        elif isinstance(message, Cancel):
            self._jobs = deque(_without(job, message.tasks) for job in self._jobs)
            self._cancelled = self._cancelled or self._current in message.tasks
        elif isinstance(message, End):
            self._ended, self._epoch = True, message.epoch
        else:
            raise TypeError(f"the master sent {message!r}, which is no message of the protocol")

    def _do(self, job: Job | Task) -> None:
        if isinstance(job, Job):
            self._evaluate(job)
        else:
            self._answers.append(Answer(job, Abandoned(begun=False), 0.0, self._comm.now()))

    def _evaluate(self, job: Job) -> None:
        pace = self._paces.get(job.kind)
        if job.alone or pace is None or pace.typical >= HELD_SECONDS:  # it may not call `check` for hours
            self._answer()
            self._comm.send(Begins(self._epoch, job.task), to=0)
        self._current, self._cancelled = job.task, False
        payload = apply(self._base, job.payload)
        if self._watchdog is not None and pace is not None:
            self._watchdog.start(pace.deadline)
        began = self._comm.now()
        try:
            value = self._measured(job.task, payload)
            if self._cancelled or self._ended:  # it caught what `check` raised, and so measured a part only
                raise AbandonedError
            self.count += 1
        except AbandonedError:
            value = Abandoned()
        finally:
            self._current = None
            if self._watchdog is not None:
                self._watchdog.stop()
        now = self._comm.now()
        self._answers.append(Answer(job.task, value, now - began, now))
        if job.alone or now - self._sent >= HELD_SECONDS:
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
        now = self._comm.now()
        if self._answers:
            self._comm.send(Done(self._epoch, now, tuple(self._answers)), to=0)
            self._answers.clear()
        self._sent = now


def _without(job: Job | Task, cancelled: Collection[Task]) -> Job | Task:
    return job.task if isinstance(job, Job) and job.task in cancelled else job
