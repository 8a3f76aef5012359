"""Starts of one search: on the hosts that answer, and anew when others are back and it is worth it."""

import functools
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quantuner.api.journal import History
from quantuner.api.timestamps import since_1970
from quantuner.distributed.hosts import Host, Returning, answering
from quantuner.distributed.journal import JOURNAL_FILE, read_history
from quantuner.distributed.processes import Launch
from quantuner.distributed.told import Stop

# A lost pod is waited for as long as a start takes: then waiting in vain costs no more than starting twice.
FIRST_PATIENCE_SECONDS = 30.0  # before a start was seen
LEAST_PATIENCE_SECONDS = 10.0  # mpi-operator has a pod back within 4 s on a quiet cluster
MOST_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Limits:
    """Where a search ends at the latest; infinite where nobody has said."""

    trials: float = math.inf
    seconds: float = math.inf
    """Of searching, those of earlier launches included."""


class Starts:
    """Gives a supervisor its launches."""

    def __init__(
        self,
        folder: Path,
        hosts: Callable[[], Sequence[Host]],
        launch: Callable[[Sequence[Host]], Launch],
        limits: Limits,
        returning: Returning | None = None,
    ) -> None:
        """`folder` has the journal; `hosts` gives all there could be, this one first; `launch` starts ranks on some."""
        self._folder, self._hosts, self._launch = folder, hosts, launch
        self._limits, self._returning = limits, returning or Returning()
        self._began: float | None = None
        self._patience = FIRST_PATIENCE_SECONDS

    def __call__(self, stop: Stop) -> Launch:
        hosts = self._hosts()
        there = answering(hosts, stop, self.patience())
        absent = [host for host in hosts if host not in there]
        launch = self._launch(there)
        self._began = time.time()
        if not absent:
            return launch
        return replace(launch, larger=functools.partial(self._await_larger, there, absent))

    def patience(self) -> float:
        """Seconds that the next start waits for hosts."""
        taken = start_seconds(self._history(), self._began)
        if taken is not None:
            self._patience = min(max(taken, LEAST_PATIENCE_SECONDS), MOST_PATIENCE_SECONDS)
        return self._patience

    def _await_larger(self, there: Sequence[Host], absent: Sequence[Host], ended: threading.Event) -> bool:
        now, missing = _slots(there), _slots(absent)

        def is_worth_it() -> bool:
            history = self._history()
            start = start_seconds(history, self._began)
            return start is None or gain(history, self._limits, now, now + missing) > start

        return self._returning.await_steady(absent, ended, is_worth_it)

    def _history(self) -> History:
        return read_history(self._folder / JOURNAL_FILE)


def _slots(hosts: Sequence[Host]) -> int:
    return sum(host.slots for host in hosts)


def start_seconds(history: History, began: float | None) -> float | None:
    """How long a start at `began` (since 1970) took until its ranks could search; None where they have not yet.

    By wall clocks: one that is set meanwhile costs one wait that is too long or too short, within its bounds.
    """
    if began is None or not history.launches:
        return None
    taken = since_1970(history.launches[-1].time) + 1 - began  # the record has whole seconds, rounded down
    return taken if taken >= 0 else None


def gain(history: History, limits: Limits, ranks: int, all_ranks: int) -> float:
    """Seconds by which a search would end earlier with `all_ranks`, less what they had under way and evaluate again.

    Infinite where nothing says how long the search will take.
    """
    trials = history.tried or history.trials
    if not trials:
        return math.inf
    each = sum(trial.seconds for trial in trials) / len(trials)
    left = (limits.trials - len(history.tried)) * each / ranks
    left = min(left, limits.seconds - trials[-1].elapsed)
    return left * (1 - ranks / all_ranks) - each
