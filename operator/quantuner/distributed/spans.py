"""What the master sees of its ranks, as spans of the timeline."""

from __future__ import annotations

from typing import Any

from quantuner.api.timeline import Ending, Kind, Span
from quantuner.api.trial import TrialResult
from quantuner.distributed.protocol import Abandoned, Answer, Failed, Task
from quantuner.distributed.timeline import Observer


class Spans:
    """Tells an observer when ranks worked on what. A slave says how long, rank 0's clock when."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._twice: set[tuple[int, Task]] = set()
        self._since: dict[int, float] = {}
        """Rank to the time when its last span ended, or its first task was given."""

    def given(self, rank: int) -> None:
        """A rank has got tasks."""
        self._since.setdefault(rank, self._observer.now())

    def again(self, rank: int, task: Task) -> None:
        """A rank has got what another one has, too."""
        self._twice.add((rank, task))

    def answered(self, rank: int, answer: Answer, sent: float, *, counts: bool) -> None:
        """`sent` is when, on the slave's clock; `counts`: it is the task's first result."""
        if isinstance(answer.value, Abandoned) and not answer.value.begun:
            self._twice.discard((rank, answer.task))
            return
        end = self._observer.now() - (sent - answer.ready)
        start = max(end - answer.seconds, self._since.get(rank, 0.0))  # its clock is another one
        self._tell(rank, answer.task, start, max(start, end), _ending(answer.value, counts))

    def lost(self, rank: int, task: Task) -> None:
        self._tell(rank, task, self._since.get(rank, 0.0), self._observer.now(), Ending.LOST)

    def _tell(self, rank: int, task: Task, start: float, end: float, ending: Ending) -> None:
        kind = Kind.PART if task.parts > 1 else Kind.DUPLICATE if (rank, task) in self._twice else Kind.TRIAL
        self._twice.discard((rank, task))
        self._since[rank] = end
        part = f"{task.part + 1}/{task.parts}" if task.parts > 1 else ""
        self._observer.span(Span(rank, kind, task.index, part, start, end, ending))


def _ending(value: Any, counts: bool) -> Ending:
    if isinstance(value, Failed) or (isinstance(value, TrialResult) and value.accuracy is None):
        return Ending.FAILED
    return Ending.TOLD if counts and not isinstance(value, Abandoned) else Ending.ABANDONED
