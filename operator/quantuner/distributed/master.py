"""Rank 0's side of the protocol: hands out trials, tells results in index order, outlives ranks."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quantuner.api.trial import TrialResult
from quantuner.distributed.communicator import Communicator, RanksLostError
from quantuner.distributed.differences import difference
from quantuner.distributed.dispatch import LOSSES, Dispatcher, Orders
from quantuner.distributed.executors import Tell, Told
from quantuner.distributed.protocol import Assign, Base, Cancel, Done, End, Failed, Job, Left, Limits, Task, Work

logger = logging.getLogger(__name__)

_epochs = itertools.count(1)


@dataclass
class _Batch:
    """Trials of one run, and what is known of them."""

    first: int
    payloads: Sequence[Any]
    next: int
    """The trial that is told next."""
    answered: dict[int, tuple[TrialResult, int]] = field(default_factory=dict)
    shares: dict[int, dict[int, Any]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return self.next == self.first + len(self.payloads)

    def payload(self, index: int) -> Any:
        return self.payloads[index - self.first]


class Master:
    """Executes trials on all other ranks, and on its own where it has a slave beside it."""

    def __init__(
        self,
        comm: Communicator,
        work: Work | None = None,
        limits: Limits | None = None,
        losses: Mapping[int, int] | None = None,
        on_loss: Callable[[int, int], None] | None = None,
    ) -> None:
        """`work` says whether trials can be divided; `losses` how many ranks each trial took in earlier launches.

        `on_loss(index, count)` keeps that. Raises `ValueError` for a world in which nobody evaluates.
        """
        ranks = list(comm.evaluators)
        if not ranks:
            raise ValueError(
                f"a master needs at least one slave, but the world has {comm.size} rank; search serially"
            )
        self._comm, self._work, self._on_loss = comm, work, on_loss
        self._epoch = next(_epochs)
        shares = work.shares if work is not None and work.combine is not None else 1
        self._dispatch = Dispatcher(ranks, limits or Limits(), shares, losses)
        self._held: dict[int, set[Task]] = {rank: set() for rank in ranks}
        """Every task that a rank was ever given and may still answer."""
        self._base: Any = None
        self._based: set[int] = set()
        """Ranks that have the base."""
        self._left: set[int] = set()
        self.hung: set[int] = set()
        """Ranks that were given up alive: who has any ends the job instead of waiting for them."""
        self._closed = False

    # --- a batch

    def run(self, first: int, payloads: Sequence[Any], tell: Tell) -> bool:
        """As `Executor.run`. Raises `RanksLostError` where nobody is left to evaluate."""
        batch = _Batch(first, payloads, first)
        self._dispatch.offer(range(first, first + len(payloads)))
        try:
            while True:
                self._give(batch, self._dispatch.plan(self._comm.now()))  # before telling: no rank waits for the journal
                if self._tell(batch, tell):
                    return True
                if batch.complete:
                    return False
                self._await(batch)
        finally:
            self._cancel(self._dispatch.forget_all())

    def _tell(self, batch: _Batch, tell: Tell) -> bool:
        while batch.next in batch.answered:
            result, rank = batch.answered.pop(batch.next)
            told = Told(batch.next, result, rank, running=self._dispatch.running)
            batch.next += 1
            if tell(told):
                return True
        return False

    def _give(self, batch: _Batch, orders: Orders) -> None:
        self._cancel(orders)
        for rank, tasks in orders.assigned.items():
            self._ready(rank, batch)
            jobs = [Job(t, self._change(batch, t), self._dispatch.is_alone(t)) for t in tasks]
            self._held[rank].update(tasks)
            self._comm.send(Assign(tuple(jobs), self._dispatch.deadline), to=rank)

    def _change(self, batch: _Batch, task: Task) -> Any:
        return difference(self._base, batch.payload(task.index))

    def _ready(self, rank: int, batch: _Batch) -> None:
        if rank in self._based:
            return
        if not self._based:
            self._base = batch.payloads[0]
        self._based.add(rank)
        self._comm.send(Base(self._epoch, self._base), to=rank)

    def _cancel(self, orders: Orders) -> None:
        for rank, tasks in orders.cancelled.items():
            if tasks:
                self._comm.send(Cancel(tuple(tasks)), to=rank)

    # --- what comes back

    def _await(self, batch: _Batch) -> None:
        """Takes one message, or what came instead of one."""
        if not self._dispatch.ranks:
            raise RanksLostError((), "no rank is left that evaluates")
        try:
            received = self._comm.receive(deadline=self._dispatch.wake())
        except RanksLostError as error:
            self._lose(batch, error.ranks, "was lost")
            return
        if received is not None:
            self._take(batch, *received)
        late = self._dispatch.overdue(self._comm.now())
        self.hung.update(late)
        self._lose(batch, late, f"has not answered for {self._dispatch.deadline:.0f} s" if late else "")

    def _take(self, batch: _Batch | None, rank: int, message: Any) -> None:
        if isinstance(message, Left):
            if message.epoch == self._epoch:
                self._left.add(rank)
            return
        if not isinstance(message, Done):
            raise RuntimeError(f"rank {rank} sent {message!r}, which is no message of the protocol")
        if message.epoch != self._epoch or rank not in self._held:  # of an earlier search, or of a rank given up
            return
        for task, value in message.results:
            if task not in self._held[rank]:
                raise RuntimeError(f"rank {rank} sent {value!r} for {task}, which it was not given")
            self._held[rank].discard(task)
            if batch is not None:
                self._answer(batch, rank, task, value)

    def _answer(self, batch: _Batch, rank: int, task: Task, value: Any) -> None:
        seconds = value.seconds if isinstance(value, TrialResult) else None
        orders = self._dispatch.answered(rank, task, self._comm.now(), seconds)
        if orders is None:
            return
        self._cancel(orders)
        if task.parts == 1:
            batch.answered[task.index] = (value, rank)
        elif isinstance(value, Failed):
            batch.shares.pop(task.index, None)
            self._cancel(self._dispatch.whole(task.index))
        else:
            self._collect(batch, rank, task, value)

    def _collect(self, batch: _Batch, rank: int, task: Task, value: Any) -> None:
        shares = batch.shares.setdefault(task.index, {})
        shares[task.part] = value
        if len(shares) == task.parts and self._work is not None and self._work.combine is not None:
            del batch.shares[task.index]
            result = self._work.combine(batch.payload(task.index), [shares[part] for part in range(task.parts)])
            batch.answered[task.index] = (result, rank)

    def _lose(self, batch: _Batch | None, ranks: Iterable[int], how: str) -> None:
        for rank in ranks:
            if self._held.pop(rank, None) is None:
                continue
            index, failed, orders = self._dispatch.lost(rank)
            logger.warning("rank %d %s%s", rank, how, "" if index is None else f" in trial {index}; others take it over")
            self._cancel(orders)
            if index is None:
                continue
            count = self._dispatch.blame(index)
            if self._on_loss is not None:
                self._on_loss(index, count)
            if failed and batch is not None:
                batch.shares.pop(index, None)
                batch.answered[index] = (_deadly(count, how), rank)

    # --- the end

    def close(self) -> None:
        """Ends every slave, each as soon as it can leave its trial. One that does not in time is `hung`."""
        if self._closed:
            return
        self._closed = True
        for rank in self._held:
            self._comm.send(End(self._epoch), to=rank)
        deadline = self._comm.now() + Limits.grace
        while waited := set(self._held) - self._left:
            try:
                received = self._comm.receive(deadline=deadline)
            except RanksLostError as error:
                self._lose(None, error.ranks, "was lost at the end")
                continue
            if received is not None:
                self._take(None, *received)
            elif self._comm.now() >= deadline:
                self.hung |= waited
                return


def _deadly(count: int, how: str) -> TrialResult:
    return TrialResult(
        accuracy=None,
        error=f"{max(count, LOSSES)} ranks were lost with this trial, the last one {how}; look for an out-of-memory kill of "
        "its pod or for an evaluation that never ends",
    )
