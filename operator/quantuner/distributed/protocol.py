"""The messages between master and slave. Plain data; a trial is its number and an opaque payload.

What there is one of for each trial is a tuple: it is made, compared and hashed without running Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from quantuner.api.errors import SearchError
from quantuner.api.trial import TrialResult
from quantuner.distributed.differences import Difference


class Task(NamedTuple):
    """A trial, or one of `parts` equal shares of its evaluation; ordered by trial."""

    index: int  # type: ignore[assignment]  # of a tuple it is a method, which nobody needs of a task
    part: int = 0
    parts: int = 1
    batch: int = 0
    """Number of the batch that it is of: a decided one leaves trials whose numbers are given again."""


class Pace(NamedTuple):
    """What is expected of a kind of trials. Seconds."""

    typical: float
    """What one that runs to its end takes; before any has, what the baseline took."""
    deadline: float
    """After so long one is given up."""


class Job(NamedTuple):
    """A task and what a slave needs for it."""

    task: Task
    payload: Difference
    """From the base that the master sent before."""
    alone: bool = False
    """Whether a rank was lost with it: what was done before it is answered first, so that its part is certain."""
    kind: str = ""
    """As `Work.kind` says."""


@dataclass(frozen=True)
class Base:
    """Master to slave, first of all: the payload from which later ones differ."""

    epoch: int
    """Number of the master's work; answers repeat it, so that late ones of an earlier work are known."""
    payload: Any


@dataclass(frozen=True)
class Assign:
    """Master to slave: evaluate these, one at least, after what you have, and answer each with a result."""

    jobs: tuple[Job, ...]
    paces: Mapping[str, Pace] = field(default_factory=dict)
    """Kind of trial to what is expected of it; the slave ends itself when one takes longer. Some are not known yet."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as columns of plain data: a tuple that has names costs a call of Python each."""
        tasks, payloads, alone, kinds = zip(*self.jobs, strict=True)
        paces = {kind: tuple(pace) for kind, pace in self.paces.items()}
        return _assign, (tuple(map(tuple, tasks)), payloads, alone, kinds, paces)


def _assign(tasks: Any, payloads: Any, alone: Any, kinds: Any, paces: Any) -> Assign:
    jobs = tuple(map(Job, map(Task._make, tasks), payloads, alone, kinds))
    return Assign(jobs, {kind: Pace(*pace) for kind, pace in paces.items()})


@dataclass(frozen=True)
class Cancel:
    """Master to slave: forget these; each is answered in its turn, by `Abandoned` where it was not evaluated."""

    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class End:
    """Master to slave: no task follows; leave the loop, a trial under way as soon as it can be left."""

    epoch: int


@dataclass(frozen=True)
class Begins:
    """Slave to master: all before is answered, and this task begins now. Said of what is alone, or not quick."""

    epoch: int
    task: Task


@dataclass(frozen=True)
class Done:
    """Slave to master: results of tasks, in the order in which they were evaluated."""

    epoch: int
    sent: float
    """When that was, on the slave's clock, as `Answer.ready`."""
    answers: tuple[Answer, ...]


class Answer(NamedTuple):
    """What became of a task."""

    task: Task
    value: Any
    """Of a whole trial a TrialResult, of a share what `Work.evaluate_part` returned; or `Failed`, or `Abandoned`."""
    seconds: float
    """How long it took."""
    ready: float
    """When it was there, on the slave's clock."""


@dataclass(frozen=True)
class Abandoned:
    """In place of a result: it did not matter any more."""

    begun: bool = True


@dataclass(frozen=True)
class Broken:
    """The slave beside the master has ended; the master's search ends with it."""

    error: str


@dataclass(frozen=True)
class Gone:
    """Slave's rank to master: it has left the search for an error; the master's search ends with it."""

    error: SearchError


@dataclass(frozen=True)
class Left:
    """Slave to master, last of all: the loop is left."""

    epoch: int


@dataclass(frozen=True)
class Work:
    """What there is to do with a payload."""

    evaluate: Callable[[Any], TrialResult]
    shares: int | Callable[[Any], int] = 1
    """Into how many shares an evaluation can be divided, or payload to that; 1 where it cannot."""
    evaluate_part: Callable[[Any, int, int], Any] | None = None
    """(payload, part, parts) to that share's result; raises what it likes where the share fails."""
    combine: Callable[[Any, Sequence[Any]], TrialResult] | None = None
    """(payload, all shares' results in order) to what `evaluate` would have given, to the bit.

    Raises `ValueError` where shares do not make a whole: the trial is evaluated whole, and no other one is divided.
    """
    kind: Callable[[Any], str] | None = None
    """Payload to a name for what a trial does; those of one name take about as long. None: all are of the empty name,
    which is that of trials that do what the baseline does."""


@dataclass(frozen=True)
class Known:
    """What took how long before. Seconds."""

    baseline: float | None = None
    trials: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Kind to those of trials that ran to their end."""


@dataclass(frozen=True)
class Failed:
    """In place of a share's result: it raised. The trial is then evaluated whole, and has the usual error."""

    error: str = ""


@dataclass
class Limits:
    """When a rank is given up, and how far ahead it is supplied. Seconds."""

    patience: float = 10.0
    """Of the seconds of the longest trial that ran to its end."""
    least: float = 60.0
    """No trial is given up sooner: a first one may load, compile or fill a cache."""
    grace: float = 5.0
    """What a slave has to end itself before the master gives it up."""
    ahead: float = 0.01
    """How much work a rank holds besides the trial that it evaluates."""
    most: int = 256
    """Tasks that a rank holds at most."""
    slow: float = 2.0
    """A trial that has taken so many medians of whole ones is also given to a rank with nothing else to do."""
    known: tuple[float, ...] = field(default=())
    """Seconds of trials that were told before."""
