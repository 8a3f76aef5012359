"""Who evaluates what: the master's decisions, without messages or clocks of their own."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from quantuner.distributed.durations import Durations
from quantuner.distributed.hands import Hand, Orders
from quantuner.distributed.losses import DOUBTFUL, LOSSES
from quantuner.distributed.protocol import Known, Limits, Pace, Task

Shares = Callable[[int], int]
"""A trial's index to into how many shares it can be divided."""

Kind = Callable[[int], str]
"""A trial's index to the name of what it does, as `Work.kind`."""


def _whole(_: int) -> int:
    return 1


class Dispatcher:
    """Keeps every rank busy, and every task in somebody's hands until it is answered. Times are in seconds."""

    def __init__(
        self,
        ranks: Iterable[int],
        limits: Limits,
        shares: Shares = _whole,
        blame: Mapping[int, float] | None = None,
        kind: Kind | None = None,
    ) -> None:
        """`shares` is into how many a trial can be divided; `blame` how many ranks were lost with a trial before;
        `kind` what it does, None where all do the same.
        """
        self.limits, self._shares, self._kind = limits, shares, kind
        self._ranks = {rank: Hand() for rank in ranks}
        self._batch = 0
        self._waiting: list[Task] = []
        """A heap: lower trials go first."""
        self._open: set[Task] = set()
        """Tasks that have no result yet."""
        self._holders: dict[Task, set[int]] = defaultdict(set)
        """Task to the ranks that have it. Kept, since a search through all ranks' tasks at each answer is quadratic."""
        self._blame: dict[int, float] = defaultdict(int, blame or {})
        self._alone: set[int] = set(self._blame)
        """Trials that may have ended a rank."""
        self._spent: dict[int, float] = {}
        """Of a divided trial's shares that are answered."""
        self._durations = Durations(limits)
        self._kinds: dict[int, str] = {}
        """Of this batch's trials, as far as they were asked for."""

    # --- what happens

    def expect(self, known: Known) -> None:
        """Takes what trials took before."""
        self._durations.expect(known)

    def offer(self, indices: Iterable[int]) -> None:
        """Takes a batch of trials."""
        self._batch += 1
        self._kinds.clear()
        for index in indices:
            self._add(Task(index, batch=self._batch))

    def whole(self, index: int, now: float) -> Orders:
        """Takes a trial whose shares cannot be put together; it is not divided again. Its shares are forgotten."""
        orders = self.forget(index, now)
        self._alone.add(index)
        self._add(Task(index, batch=self._batch))
        return orders

    def _add(self, task: Task) -> None:
        self._open.add(task)
        heapq.heappush(self._waiting, task)

    def answered(
        self, rank: int, task: Task, now: float, seconds: float | None = None, *, whole: bool = True
    ) -> Orders | None:
        """Takes note of a result. None where it comes too late; else who need not go on with the task.

        `seconds` is what it took; `whole` whether it ran to its end, so that others may take as long.
        """
        self.left(rank, task, now)
        if rank in self._holders.get(task, ()):
            self._remove(rank, task)
            self._ranks[rank].since = now  # whatever it answered, it begins another now
        if task not in self._open:
            return None
        self._open.discard(task)
        if seconds is not None:
            self._spend(task, seconds, whole)
        orders = Orders()
        self._take_back(task, now, orders)
        return orders

    def begins(self, rank: int, task: Task, now: float) -> None:
        """A rank says that it begins a task."""
        held = self._ranks.get(rank)
        if held is not None:
            held.begun = task
            if held.tasks and held.tasks[0] == task:
                held.since = now

    def left(self, rank: int, task: Task, now: float) -> None:
        """A rank is no longer at a task that it may have been told to leave, and begins another."""
        held = self._ranks.get(rank)
        if held is not None and held.leaving is not None:
            held.since = now
            if held.leaving == task:
                held.leaving = None

    def excuse(self, seconds: float, now: float, *, certain: bool = True) -> None:
        """Ranks had so much less time than it seems: nobody took their answers.

        `certain` is whether the master was held up, and did not just wait for as long as it takes.
        """
        for held in self._ranks.values():
            held.since = min(held.since + seconds, now)
            if seconds and certain:
                held.excused = frozenset(held.tasks)

    def _spend(self, task: Task, seconds: float, whole: bool) -> None:
        """A trial took what its shares took together: a search that divides every one still knows when one is stuck."""
        if task.parts > 1:
            seconds += self._spent.pop(task.index, 0.0)
            if any(other.index == task.index for other in self._open):
                self._spent[task.index] = seconds
                return
        self._durations.learn(self.kind(task.index), seconds, whole=whole)

    def _take_back(self, task: Task, now: float, orders: Orders) -> None:
        for rank in sorted(self._holders.get(task, ())):
            held = self._ranks[rank]
            if held.tasks[0] == task:
                held.leave(task, self.deadline(task.index))
            self._remove(rank, task)
            orders.cancel(rank, [task])

    def _remove(self, rank: int, task: Task) -> None:
        self._ranks[rank].tasks.remove(task)
        self._holders[task].discard(rank)
        if not self._holders[task]:
            del self._holders[task]

    def forget(self, index: int, now: float) -> Orders:
        """No result of the trial matters any more."""
        orders = Orders()
        gone = sorted(task for task in self._open if task.index == index)
        for task in gone:
            self._take_back(task, now, orders)
        self._open.difference_update(gone)
        self._spent.pop(index, None)
        self._waiting = [task for task in self._waiting if task.index != index]
        heapq.heapify(self._waiting)
        return orders

    def forget_all(self) -> Orders:
        """The batch is decided."""
        orders = Orders()
        for rank, held in self._ranks.items():
            orders.cancel(rank, held.tasks)
            if held.tasks:
                held.leave(held.tasks[0], self.deadline(held.tasks[0].index))
            held.tasks.clear()
        self._holders.clear()
        self._open.clear()
        self._spent.clear()
        self._waiting.clear()
        return orders

    def lost(self, rank: int, now: float, weight: float = 1) -> tuple[Task | None, bool, Orders]:
        """Takes a rank away; what it had goes to others. `weight` is how much its loss counts.

        It counts as doubtful where the master was held up in that trial: what held it up, as a freeze of all ranks, may
        have run out the rank's own time. Returns the task that it was at, None where that was none of these; whether
        the trial has failed by that; and who need not go on with it. That is the first of a rank's tasks, but not where
        the rank had not yet left what it was told to. A trial is blamed only where the rank has said that it begins it:
        else, as with quick ones, which are answered together, the rank may have been at another or at none. All of its
        tasks go on alone, so that it is certain at the next loss.
        """
        tasks = list(self._ranks[rank].tasks) if rank in self._ranks else []
        for task in tasks:
            self._remove(rank, task)
            self._alone.add(task.index)
            if task in self._open and not self.holders(task):
                heapq.heappush(self._waiting, task)
        held = self._ranks.pop(rank, None)
        if not tasks or held is None or held.leaving is not None:
            return None, False, Orders()
        at, certain = tasks[0], held.begun == tasks[0]
        if at in held.excused:
            weight = min(weight, DOUBTFUL)
        self._blame[at.index] += weight if certain else 0
        failed = certain and self._blame[at.index] >= LOSSES
        return at, failed, self.forget(at.index, now) if failed else Orders()

    def blame(self, index: int) -> float:
        """Ranks that were lost with a trial, as they count."""
        return self._blame.get(index, 0)

    def is_alone(self, task: Task) -> bool:
        """Whether a rank was lost that had the trial."""
        return task.index in self._alone

    # --- what follows from it

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(self._ranks)

    @property
    def running(self) -> int:
        """Ranks at work."""
        return sum(bool(held.tasks) for held in self._ranks.values())

    @property
    def batch(self) -> int:
        """Number of the present one."""
        return self._batch

    @property
    def paces(self) -> Mapping[str, Pace]:
        """What is known of how long trials take, by kind."""
        return self._durations.paces

    def kind(self, index: int) -> str:
        """What a trial of this batch does."""
        if self._kind is None:
            return ""
        if index not in self._kinds:
            self._kinds[index] = self._kind(index)
        return self._kinds[index]

    def deadline(self, index: int) -> float | None:
        """Seconds after which a trial is given up; None where none that does the same has run to its end."""
        pace = self._durations.pace(self.kind(index))
        return None if pace is None else pace.deadline

    def _patience(self, held: Hand) -> float | None:
        """Seconds that a rank may be at what it is at; None where it is idle, or that is not known."""
        if held.leaving is not None:
            return held.limit
        return self.deadline(held.tasks[0].index) if held.tasks else None

    def _due(self, held: Hand) -> float | None:
        """When a rank is given up, if it answers nothing."""
        limit = self._patience(held)
        return None if limit is None else held.since + limit + self.limits.grace

    def overdue(self, now: float) -> dict[int, float]:
        """Ranks that have been at one task for longer than it may take, and how long that is."""
        due = {rank: self._due(held) for rank, held in self._ranks.items()}
        late = [rank for rank, at in due.items() if at is not None and now >= at]
        return {rank: self._patience(self._ranks[rank]) or 0.0 for rank in late}

    def wake(self) -> float | None:
        """When something is due though nothing happens: a rank is given up, or a slow trial given to a second one."""
        times = [self._due(held) for held in self._ranks.values()]
        if any(held.idle for held in self._ranks.values()):
            times += [self._slow(held) for held in self._single()]
        return min((at for at in times if at is not None), default=None)

    def _slow(self, held: Hand) -> float | None:
        """When an idle rank takes a rank's present trial over."""
        seconds = self._durations.slow(self.kind(held.tasks[0].index))
        return None if seconds is None else held.since + seconds

    def _single(self) -> Iterator[Hand]:
        """Ranks whose present trial nobody else has, and somebody else could have."""
        for held in self._ranks.values():
            if held.tasks and not self.is_alone(held.tasks[0]) and self.holders(held.tasks[0]) == 1:
                yield held

    def holders(self, task: Task) -> int:
        """Ranks that have a task."""
        return len(self._holders.get(task, ()))

    def plan(self, now: float) -> Orders:
        """Gives out what waits: to idle ranks first, then ahead; ranks that stay idle take over from others."""
        orders = Orders()
        self._divide()
        idle = [rank for rank, held in self._ranks.items() if held.idle]
        while idle and self._waiting:
            self._give(idle.pop(0), heapq.heappop(self._waiting), now, orders)
        self._supply(now, orders)
        for rank in idle:
            self._take_over(rank, now, orders)
        return orders

    def _give(self, rank: int, task: Task, now: float, orders: Orders) -> None:
        held = self._ranks[rank]
        if not held.tasks:
            held.since = now
        held.tasks.append(task)
        self._holders[task].add(rank)
        orders.assign(rank, task)

    def _divide(self) -> None:
        """Where fewer trials wait than ranks are idle, each is divided, so that none of these has nothing to do."""
        if not self._waiting:
            return
        idle = sum(held.idle for held in self._ranks.values())
        if idle < 2 * len(self._waiting):
            return
        divisible = [t for t in self._waiting if t.parts == 1 and t.index not in self._alone]
        if len(divisible) != len(self._waiting):
            return
        self._waiting = []
        for task in divisible:
            parts = min(self._shares(task.index), idle // len(divisible))
            self._open.discard(task)
            for part in range(parts):
                self._add(Task(task.index, part, parts, self._batch))

    def _supply(self, now: float, orders: Orders) -> None:
        """Work ahead, so that no rank waits for the master's answer; each in turn, so that all have as much."""
        depth = self._depth()
        hungry = deque(r for r, held in self._ranks.items() if len(held.tasks) <= depth // 2 and self._shares_out(held))
        while hungry and self._waiting and self._waiting[0].index not in self._alone:
            rank = hungry.popleft()
            self._give(rank, heapq.heappop(self._waiting), now, orders)
            if len(self._ranks[rank].tasks) < depth:
                hungry.append(rank)

    def _shares_out(self, held: Hand) -> bool:
        """A rank with a task that may end it gets nothing behind it, and one that has to leave one first does that."""
        return held.leaving is None and not (held.tasks and held.tasks[0].index in self._alone)

    def _depth(self) -> int:
        """Tasks for a rank: the one that it evaluates, and those that keep it busy for `ahead` seconds."""
        typical = self._durations.typical
        seconds = self.limits.ahead if typical is None else typical
        ahead = math.ceil(self.limits.ahead / max(seconds, 1e-6))
        fair = math.ceil(len(self._waiting) / max(1, len(self._ranks)))  # the last ones are not hoarded
        return 1 + max(1, min(ahead, self.limits.most - 1, fair))

    def _take_over(self, rank: int, now: float, orders: Orders) -> None:
        """Half of what the richest rank has not begun; else the slowest trial a second time."""
        source = max(self._ranks, key=lambda r: len(self._ranks[r].tasks))
        richest = self._ranks[source]
        unbegun = len(richest.tasks) - 1
        if (
            unbegun > 0 and unbegun * (self._durations.typical or 0.0) >= self.limits.ahead
        ):  # else it is done before a message is
            for task in _last(richest.tasks, (unbegun + 1) // 2):
                self._remove(source, task)
                orders.cancel(source, [task])
                self._give(rank, task, now, orders)
            return
        late = [held for held in self._single() if (at := self._slow(held)) is not None and now >= at]
        if late:
            self._give(rank, min(late, key=lambda held: held.since).tasks[0], now, orders)


def _last(tasks: Sequence[Task], count: int) -> list[Task]:
    return list(tasks)[len(tasks) - count :]
