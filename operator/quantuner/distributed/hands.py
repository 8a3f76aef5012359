"""What each rank has in hand, and what is to be sent to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from quantuner.distributed.protocol import Task


@dataclass
class Hand:
    """What a rank has."""

    tasks: deque[Task] = field(default_factory=deque)
    """Sent and not answered, in order; the first is being evaluated."""
    since: float = 0.0
    """When the first became the first; of a rank that has something to leave, when it began that."""
    begun: Task | None = None
    """The last one that it has said it begins."""
    leaving: Task | None = None
    """What it was told to leave when it had begun it. It may be deep in it, and is busy until it answers that."""
    limit: float | None = None
    """Seconds that it may still be at that; None where that is not known."""
    excused: frozenset[Task] = frozenset()
    """What it had when the master was last held up."""

    @property
    def idle(self) -> bool:
        return not self.tasks and self.leaving is None

    def leave(self, task: Task, limit: float | None) -> None:
        """Takes note that the first task no longer matters."""
        both = (limit,) if self.leaving is None else (limit, self.limit)
        known = [one for one in both if one is not None]
        self.leaving, self.limit = task, max(known) if len(known) == len(both) else None


@dataclass
class Orders:
    """What is to be sent."""

    assigned: dict[int, list[Task]] = field(default_factory=dict)
    cancelled: dict[int, list[Task]] = field(default_factory=dict)

    def assign(self, rank: int, task: Task) -> None:
        self.assigned.setdefault(rank, []).append(task)

    def cancel(self, rank: int, tasks: Iterable[Task]) -> None:
        self.cancelled.setdefault(rank, []).extend(tasks)
