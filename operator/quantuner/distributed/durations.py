"""What trials took, by kind, and what follows: when one is given up, when a second rank tries it, what fills a moment.

A deadline that is too short makes a healthy trial fail, and so perhaps another one win; one that is too long costs a
stuck rank's work. So it is `patience` times the longest trial of the kind that ran to its end, and never less than that
of the baseline, which evaluates the same data: what was abandoned, failed or cancelled took what it took for other
reasons, and changes nothing.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping

from quantuner.distributed.protocol import Known, Limits, Pace

RECENT = 101
"""Trials that a median is of."""


class Durations:
    """Seconds of what was answered. A kind is a name; the empty one is of trials that are made like the baseline."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._baseline: float | None = None
        self._longest: dict[str, float] = {}
        self._whole: dict[str, deque[float]] = {}
        self._all: deque[float] = deque(maxlen=RECENT)
        self._medians: dict[str | None, float] = {}
        """Those that are computed: of a kind's whole trials, and under None of all answers."""
        for seconds in limits.known:
            self.learn("", seconds)

    def expect(self, known: Known) -> None:
        """Takes what was told before; of the baseline only for how long a trial may take."""
        self._baseline = known.baseline
        for kind, trials in known.trials.items():
            for seconds in trials:
                self.learn(kind, seconds)

    def learn(self, kind: str, seconds: float, *, whole: bool = True) -> None:
        """Takes a trial's seconds. `whole` is whether it ran to its end: it was neither abandoned nor did it fail."""
        self._all.append(seconds)
        self._medians.pop(None, None)
        if whole:
            self._whole.setdefault(kind, deque(maxlen=RECENT)).append(seconds)
            self._longest[kind] = max(seconds, self._longest.get(kind, 0.0))
            self._medians.pop(kind, None)

    def pace(self, kind: str) -> Pace | None:
        """None where no trial of the kind has run to its end; for the empty kind the baseline is as good."""
        longest = self._longest.get(kind)
        if longest is None and kind:
            return None
        known = [seconds for seconds in (longest, self._baseline) if seconds is not None]
        if not known:
            return None
        typical = self._median(kind, self._whole[kind]) if kind in self._whole else known[0]
        return Pace(typical, max(self._limits.least, self._limits.patience * max(known)))

    @property
    def paces(self) -> Mapping[str, Pace]:
        """Of all kinds that have one."""
        found = {kind: self.pace(kind) for kind in ("", *self._longest)}
        return {kind: pace for kind, pace in found.items() if pace is not None}

    def slow(self, kind: str) -> float | None:
        """Seconds after which an idle rank tries a trial, too; None before one of the kind has run to its end."""
        if kind not in self._whole:
            return None
        return self._limits.slow * self._median(kind, self._whole[kind]) + self._limits.ahead

    @property
    def typical(self) -> float | None:
        """Median of what was answered, whatever became of it; before that, the baseline's."""
        return self._median(None, self._all) if self._all else self._baseline

    def _median(self, kind: str | None, seconds: deque[float]) -> float:
        """Computed when it is asked for: many quick trials are answered between."""
        if kind not in self._medians:
            self._medians[kind] = statistics.median(seconds)
        return self._medians[kind]
