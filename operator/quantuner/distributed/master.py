"""Rank 0's side of the protocol: hands out trials, tells results in index order, outlives ranks."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from quantuner.api.errors import SearchError
from quantuner.api.trial import TrialResult
from quantuner.distributed.answered import Answered
from quantuner.distributed.batch import Batch
from quantuner.distributed.communicator import Messages, RanksLostError
from quantuner.distributed.differences import Reference
from quantuner.distributed.dispatch import Dispatcher
from quantuner.distributed.executors import Tell, Told
from quantuner.distributed.hands import Orders
from quantuner.distributed.losses import DOUBTFUL, Losses, deadly
from quantuner.distributed.own_slave import WithOwnSlave
from quantuner.distributed.protocol import (
    Abandoned,
    Answer,
    Assign,
    Base,
    Begins,
    Broken,
    Cancel,
    Done,
    End,
    Failed,
    Gone,
    Job,
    Known,
    Left,
    Limits,
    Task,
    Work,
)
from quantuner.distributed.spans import Spans
from quantuner.distributed.timeline import Observer, Quiet

logger = logging.getLogger(__name__)

MESSAGE = 64
"""Tasks in a message at most, so that a rank is at work on the first while more are being written."""

LISTEN_SECONDS = 0.5
"""Before somebody is given up, in which what is on its way arrives: a look that does not wait may not see it, and this
rank may just have been away."""

_epochs = itertools.count(1)


class Master:
    """Executes trials on all ranks that have a slave."""

    def __init__(
        self,
        comm: Messages,
        work: Work | None = None,
        limits: Limits | None = None,
        losses: Losses | None = None,
        observer: Observer | None = None,
        known: Callable[[], Known] = Known,
        answered: Answered | None = None,
        hosts_answer: Callable[[], bool] = lambda: True,
    ) -> None:
        """`work` says whether trials can be divided, `losses` which ones took ranks with them before.
        `known` gives seconds of what was told before the first batch, so that its first trial, too, is given up when
        it is stuck.
        `answered` keeps results that wait for earlier ones. `hosts_answer` is asked when ranks were lost: where a host
        is gone, they may have been lost with it, or been ended since mpirun ends the launch.

        Raises `ValueError` for a world in which nobody evaluates.
        """
        ranks = list(comm.evaluators)
        if not ranks:
            raise ValueError(f"a master needs at least one slave, but the world has {comm.size} rank; search serially")
        self._comm, self._work = comm, work
        self._known: Callable[[], Known] | None = known
        self._losses = losses or Losses()
        self._answered = answered or Answered()
        self._hosts_answer = hosts_answer
        self._limits = limits or Limits()
        self._spans = Spans(observer or Quiet())
        self._epoch = next(_epochs)
        self._divides = work is not None and work.combine is not None
        self._batch: Batch | None = None
        kind = None if work is None or work.kind is None else self._kind
        self._dispatch = Dispatcher(ranks, self._limits, self._shares, self._losses.known, kind)
        self._owed: dict[int, deque[Task]] = {rank: deque() for rank in ranks}
        """Answers that a rank may still give, in the order in which it would."""
        self._base = Reference(None)
        self._based: set[int] = set()
        """Ranks that have the base."""
        self._left: set[int] = set()
        self._looked = comm.now()
        """When this rank last took what had come."""
        self._closed = False

    # --- a batch

    def run(self, first: int, payloads: Sequence[Any], tell: Tell) -> bool:
        """As `Executor.run`. Raises `RanksLostError` where nobody is left to evaluate, and what a rank left with."""
        indices = range(first, first + len(payloads))
        batch = Batch(first, payloads, self._work, next=first, answered=self._decided(indices))
        self._batch = batch
        self._excuse()
        if self._known is not None:
            self._dispatch.expect(self._known())
            self._known = None
        self._dispatch.offer(index for index in indices if index not in batch.answered)
        try:
            while True:
                self._give(batch)  # before telling: no rank waits for the journal
                if self._tell(batch, tell):
                    return True
                if batch.complete:
                    return False
                self._answered.keep(batch.waiting(), told=batch.next)
                self._await(batch)
        finally:
            self._cancel(self._dispatch.forget_all())
            self._quiesce()

    def _decided(self, indices: range) -> dict[int, tuple[TrialResult, int]]:
        """What earlier launches say of these trials."""
        lost = ((index, self._losses.failed(index)) for index in self._losses.known if index in indices)
        failed = {index: (result, 0) for index, result in lost if result is not None}
        return failed | self._answered.known(indices)

    def _quiesce(self) -> None:
        """Waits for the slave beside this master, with which it shares what trials are evaluated with."""
        if not isinstance(self._comm, WithOwnSlave):
            return
        own = self._comm.rank
        if own not in self._comm.given_up and not self._own_leaves(self._comm):
            self._comm.given_up.add(own)
        if own in self._comm.given_up:  # nothing ends its thread, and what follows cannot go on beside it
            raise RanksLostError((own,), "the launcher's own trial does not end; a relaunch goes on here")

    def _own_leaves(self, comm: WithOwnSlave) -> bool:
        """Whether the slave beside this master leaves in time, of which it had none while both were held up."""
        while True:
            seconds = self._leaves_within(comm.rank)
            until = None if seconds is None else comm.now() + seconds
            if comm.quiesce(seconds):
                return True
            if not self._held_up(until):
                return False

    def _leaves_within(self, rank: int) -> float | None:
        """Seconds that a rank may still take for what it has of this batch; None where that is not known."""
        tasks = [task for task in self._owed.get(rank, ()) if task.batch == self._dispatch.batch]
        limits = [self._dispatch.deadline(task.index) for task in tasks]
        known = [limit for limit in limits if limit is not None]
        return max(known) + self._limits.grace if known and len(known) == len(limits) else None

    def _kind(self, index: int) -> str:
        if self._work is None or self._work.kind is None or self._batch is None:
            return ""
        return self._work.kind(self._batch.payload(index))

    def _shares(self, index: int) -> int:
        if self._work is None or self._batch is None or not self._divides:
            return 1
        shares = self._work.shares
        return shares(self._batch.payload(index)) if callable(shares) else shares

    def _tell(self, batch: Batch, tell: Tell) -> bool:
        running = self._dispatch.running
        while (ready := batch.take()) is not None:
            if tell(Told(*ready, running)):
                return True
        return False

    def _give(self, batch: Batch) -> None:
        orders = self._dispatch.plan(self._comm.now())
        self._cancel(orders)
        if not orders.assigned:
            return
        paces = self._dispatch.paces
        for rank, tasks in orders.assigned.items():
            self._ready(rank, batch)
            self._owed[rank].extend(tasks)
            self._spans.given(rank)
            for task in tasks:
                if self._dispatch.holders(task) > 1:
                    self._spans.again(rank, task)
            for start in range(0, len(tasks), MESSAGE):
                jobs = tuple(self._job(batch, task) for task in tasks[start : start + MESSAGE])
                self._comm.send(Assign(jobs, paces), to=rank)

    def _job(self, batch: Batch, task: Task) -> Job:
        change = self._base.difference(batch.payload(task.index))
        return Job(task, change, self._dispatch.is_alone(task), self._dispatch.kind(task.index))

    def _ready(self, rank: int, batch: Batch) -> None:
        if rank in self._based:
            return
        if not self._based:
            self._base = Reference(batch.payloads[0])
        self._based.add(rank)
        self._comm.send(Base(self._epoch, self._base.value), to=rank)

    def _cancel(self, orders: Orders) -> None:
        for rank, tasks in orders.cancelled.items():
            if tasks:
                self._comm.send(Cancel(tuple(tasks)), to=rank)

    # --- what comes back

    def _await(self, batch: Batch) -> None:
        """Takes what has come, and waits where nothing has. All of it, so that nobody is given what is done already."""
        if not self._dispatch.ranks:
            raise RanksLostError((), "no rank is left that evaluates")
        self._excuse()
        try:
            self._drain(batch, self._next_look())
            if self._dispatch.overdue(self._looked):
                self._listen(batch, self._looked + LISTEN_SECONDS)
        except RanksLostError as error:
            self._lose(batch, error.ranks, "was lost")
            return
        for rank, limit in self._dispatch.overdue(self._comm.now()).items():
            self._comm.given_up.add(rank)
            self._lose(batch, [rank], f"did not answer for {limit:.0f} s")

    def _next_look(self) -> float | None:
        """At the latest; None where nothing is due. Soon in any case, since only one who looks often knows that it was
        away: frozen with all others, it would else wake when it meant to, and their own time would be over."""
        due = self._dispatch.wake()
        return None if due is None else min(due, self._looked + self._late)

    @property
    def _late(self) -> float:
        """Seconds after which a look that was meant to be earlier says that this rank was held up."""
        return max(self._limits.grace, LISTEN_SECONDS)

    def _drain(self, batch: Batch, deadline: float | None) -> None:
        try:
            received = self._comm.receive(deadline=deadline)
            while received is not None:
                self._take(batch, *received)
                received = self._comm.pending()
        finally:
            self._excuse(deadline, certain=deadline is not None)

    def _listen(self, batch: Batch, deadline: float) -> None:
        try:
            while (received := self._comm.receive(deadline=deadline)) is not None:
                self._take(batch, *received)
        finally:
            self._excuse(deadline)

    def _excuse(self, deadline: float | None = None, *, certain: bool = True) -> None:
        """No rank is given up for time in which this one was held up: by a slow disk, stopped, or frozen."""
        self._dispatch.excuse(self._held_up(deadline), self._looked, certain=certain)

    def _held_up(self, deadline: float | None) -> float:
        """Seconds since this rank last looked, where it looks much later than it meant to, at `deadline`; else 0."""
        now = self._comm.now()
        looked, self._looked = self._looked, now
        meant = looked if deadline is None else max(looked, deadline)
        return now - looked if now - meant > self._late else 0.0

    def _take(self, batch: Batch | None, rank: int, message: Any) -> None:
        if isinstance(message, Left):
            if message.epoch == self._epoch:
                self._left.add(rank)
            return
        if isinstance(message, Broken):
            self._owed.pop(rank, None)  # nobody waits for it at the end
            raise RuntimeError(f"the slave beside the master has ended: {message.error}")
        if isinstance(message, Gone):
            self._owed.pop(rank, None)
            if batch is not None:  # at the end it changes nothing
                error = message.error
                raise SearchError(error.reason, f"{error.message} (on rank {rank})", error.traceback)
            return
        if isinstance(message, Begins):
            if message.epoch == self._epoch:
                self._dispatch.begins(rank, message.task, self._comm.now())
            return
        if not isinstance(message, Done):
            raise RuntimeError(f"rank {rank} sent {message!r}, which is no message of the protocol")
        if message.epoch != self._epoch or rank not in self._owed:  # of an earlier search, or of a rank given up
            return
        owed = self._owed[rank]
        for answer in message.answers:
            if not _settle(owed, answer.task):
                raise RuntimeError(f"rank {rank} sent {answer.value!r} for {answer.task}, which it was not given")
            counts = self._answer(batch, rank, answer)
            self._spans.answered(rank, answer, message.sent, counts=counts)

    def _answer(self, batch: Batch | None, rank: int, answer: Answer) -> bool:
        """Whether it is the task's first result."""
        task, value = answer.task, answer.value
        if batch is None or isinstance(value, Abandoned):
            self._dispatch.left(rank, task, self._comm.now())
            return False
        seconds = None if isinstance(value, Failed) else answer.seconds
        orders = self._dispatch.answered(rank, task, self._comm.now(), seconds, whole=_ran_to_its_end(value))
        if orders is None:
            return False
        self._cancel(orders)
        if isinstance(value, Failed):
            self._evaluate_whole(batch, task.index)
        elif task.parts == 1:
            batch.answer(task.index, value, rank)
        else:
            self._share(batch, rank, answer)
        return True

    def _share(self, batch: Batch, rank: int, answer: Answer) -> None:
        try:
            batch.share(answer.task, answer.value, rank)
        except ValueError as error:
            logger.warning("no trial is divided any more: %s", error)
            self._divides = False
            self._evaluate_whole(batch, answer.task.index)

    def _evaluate_whole(self, batch: Batch, index: int) -> None:
        batch.forget_shares(index)
        self._cancel(self._dispatch.whole(index, self._comm.now()))

    def _lose(self, batch: Batch | None, ranks: Iterable[int], how: str) -> None:
        doubtful = batch is not None and not self._hosts_answer()  # at the end nothing is blamed
        weight = DOUBTFUL if doubtful else 1
        how += " when a host did not answer, which counts half" if doubtful else ""
        for rank in ranks:
            if self._owed.pop(rank, None) is None:
                continue
            task, failed, orders = self._dispatch.lost(rank, self._comm.now(), weight)
            logger.warning("rank %d %s%s", rank, how, f" in trial {task.index}; others take over" if task else "")
            self._cancel(orders)
            if task is None:
                continue
            self._spans.lost(rank, task)
            count = self._dispatch.blame(task.index)
            self._losses.record(task.index, count)
            if failed and batch is not None:
                batch.answer(task.index, deadly(count, how), rank)

    # --- the end

    def close(self) -> None:
        """Ends every slave, each as soon as it can leave its trial. One that does not in time is given up."""
        if self._closed:
            return
        self._closed = True
        for rank in self._owed:
            self._comm.send(End(self._epoch), to=rank)
        self._looked = self._comm.now()
        deadline, listens = self._looked + self._limits.grace, False
        while waited := set(self._owed) - self._left:
            try:
                received = self._comm.receive(deadline=deadline)
            except RanksLostError as error:
                self._lose(None, error.ranks, "was lost at the end")
                continue
            deadline += self._held_up(deadline)
            if received is not None:
                self._take(None, *received)
            elif self._looked >= deadline and not listens:
                deadline, listens = self._looked + LISTEN_SECONDS, True
            elif self._looked >= deadline:
                logger.info("not waiting for rank %s", ", ".join(map(str, sorted(waited))))
                self._comm.given_up.update(waited)
                return


def _settle(owed: deque[Task], task: Task) -> bool:
    """Takes an answered task off what a rank owes; False where it does not owe it.

    A rank answers all in order, what was cancelled too.
    """
    return bool(owed) and owed.popleft() == task


def _ran_to_its_end(value: Any) -> bool:
    """Whether others may take as long as this one: it was not abandoned, and did not fail on the way."""
    return not isinstance(value, TrialResult) or (value.accuracy is not None and not value.is_bound)
