"""A timeline out of a journal alone, for searches that recorded none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from quantuner.api.journal import Launched, Record, Trial, TrialState
from quantuner.api.names import BASELINE_TRIAL
from quantuner.api.timeline import Ending, Kind, LaunchSpans, Span
from quantuner.api.timestamps import since_1970
from quantuner.api.utilization import by_rank


def derived(records: Iterable[Record]) -> list[LaunchSpans]:
    """The baseline and the told trials of each launch; time 0 is when the search of that launch began.

    A journal knows how long a trial took, and when it was told: in index order, which may be long after it ended.
    So a span ends when it was told, or when the rank's next one must have begun, and keeps its length.
    """
    launches: list[LaunchSpans] = []
    before = elapsed = 0.0
    for record in records:
        if isinstance(record, Launched):
            before = elapsed
            launches.append(LaunchSpans(since_1970(record.time), record.ranks, record.hosts))
        elif isinstance(record, Trial) and launches:
            elapsed = record.elapsed
            launches[-1].spans.append(_span(record, elapsed - before))
    for launch in launches:
        launch.spans = _consistent(launch.spans)
    return launches


def _span(trial: Trial, told: float) -> Span:
    kind = Kind.BASELINE if trial.index == BASELINE_TRIAL else Kind.TRIAL
    ending = Ending.FAILED if trial.state is TrialState.FAILED else Ending.TOLD
    return Span(trial.rank, kind, trial.index, "", told - trial.seconds, told, ending)


def _consistent(spans: list[Span]) -> list[Span]:
    """Moves spans earlier, so that a rank does one thing at a time, and all later, so that none begins before 0."""
    moved: list[Span] = []
    for own in by_rank(spans).values():
        following = float("inf")
        for span in sorted(own, key=lambda span: span.index, reverse=True):
            end = min(span.end, following)
            following = end - span.seconds
            moved.append(replace(span, start=following, end=end))
    early = -min((span.start for span in moved), default=0.0)
    late = [replace(span, start=span.start + early, end=span.end + early) for span in moved] if early > 0 else moved
    return sorted(late, key=lambda span: (span.start, span.rank))
