"""How well a run used its ranks."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from quantuner.api.timeline import Ending, Kind, LaunchSpans, Span

TRIALS = (Kind.TRIAL, Kind.PART, Kind.DUPLICATE)
"""The work that is spread over ranks."""


@dataclass(frozen=True)
class Gap:
    """A time in which a rank had nothing to do although trials were running."""

    rank: int
    start: float
    """Seconds since the first launch began."""
    seconds: float


@dataclass(frozen=True)
class Utilization:
    wall: float
    """Seconds that the launches lasted together; the time between them does not count."""
    ranks: tuple[float, ...]
    """Of each rank: busy seconds by the seconds of the launches that it was part of."""
    overall: float
    """Busy seconds of all ranks by the seconds that all were there: Σ busy / Σ (ranks · wall)."""
    trials: float | None
    """The same from each launch's first trial to its last, of the ranks that are there for trials."""
    first_trial: float | None
    """Seconds from the first launch to the first trial's start."""
    longest_gap: Gap | None


def utilization(launches: Sequence[LaunchSpans]) -> Utilization:
    ranks = max((launch.ranks for launch in launches), default=0)
    gaps = list(_gaps(launches))
    busy, there = [0.0] * ranks, [0.0] * ranks
    for launch in launches:
        spans = by_rank(launch.spans)
        for rank in range(launch.ranks):
            busy[rank] += _covered(spans[rank])
            there[rank] += launch.seconds
    return Utilization(
        wall=sum(launch.seconds for launch in launches),
        ranks=tuple(_share(b, t) for b, t in zip(busy, there, strict=True)),
        overall=_share(sum(busy), sum(there)),
        trials=_while_trials_ran(launches, gaps),
        first_trial=_first_trial(launches),
        longest_gap=max(gaps, key=lambda gap: gap.seconds, default=None),
    )


def offsets(launches: Sequence[LaunchSpans]) -> list[float]:
    """When each launch began, in seconds after the first. A clock that was set back makes none overlap the last."""
    found: list[float] = []
    end = 0.0
    for launch in launches:
        found.append(max(end, launch.began - launches[0].began))
        end = found[-1] + launch.seconds
    return found


def by_rank(spans: Iterable[Span]) -> defaultdict[int, list[Span]]:
    """Each rank's spans in the order of their starts."""
    found: defaultdict[int, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        found[span.rank].append(span)
    return found


def one_at_a_time(spans: Sequence[Span]) -> list[Span]:
    """One rank's spans, each cut where the next begins: what overlaps was heard of late."""
    following = itertools.chain((span.start for span in spans[1:]), [float("inf")])
    return [
        replace(span, end=max(span.start, min(span.end, then))) for span, then in zip(spans, following, strict=False)
    ]


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _covered(spans: Iterable[Span]) -> float:
    """Seconds in which at least one of a rank's spans ran."""
    total = reached = 0.0
    for span in spans:
        total += max(0.0, span.end - max(span.start, reached))
        reached = max(reached, span.end)
    return total


def _first_trial(launches: Sequence[LaunchSpans]) -> float | None:
    for launch, offset in zip(launches, offsets(launches), strict=True):
        starts = [span.start for span in launch.spans if span.kind in TRIALS]
        if starts:
            return offset + min(starts)
    return None


@dataclass(frozen=True)
class _Window:
    """The time of a launch from the first trial's start to the last one's end."""

    start: float
    end: float
    ranks: tuple[int, ...]
    """Those that are there for trials: all but rank 0, and rank 0 where it evaluates some itself."""


def _window(launch: LaunchSpans) -> _Window | None:
    """Abandoned trials do not count: rank 0 may hear of them long after the search was decided."""
    trials = [span for span in launch.spans if span.kind in TRIALS and span.outcome != Ending.ABANDONED]
    if not trials:
        return None
    ranks = {span.rank for span in trials} | set(range(1, launch.ranks))
    return _Window(min(span.start for span in trials), max(span.end for span in trials), tuple(sorted(ranks)))


def _gaps(launches: Sequence[LaunchSpans]) -> Iterator[Gap]:
    """Of the ranks that are there for trials, while trials ran."""
    for launch, offset in zip(launches, offsets(launches), strict=True):
        window, spans = _window(launch), by_rank(launch.spans)
        if window is None:
            continue
        for rank in window.ranks:
            reached = window.start
            for start, end in [*((span.start, span.end) for span in spans[rank]), (window.end, window.end)]:
                if min(start, window.end) > reached:
                    yield Gap(rank, offset + reached, min(start, window.end) - reached)
                reached = max(reached, end)


def _while_trials_ran(launches: Sequence[LaunchSpans], gaps: Sequence[Gap]) -> float | None:
    windows = [window for launch in launches if (window := _window(launch)) is not None]
    there = sum(len(window.ranks) * (window.end - window.start) for window in windows)
    return 1 - sum(gap.seconds for gap in gaps) / there if there else None
