"""What journal and timeline say of losses."""

from collections.abc import Sequence

from quantuner.api.journal import Launched, Trial, decode
from quantuner.api.timeline import Ending, Kind, LaunchSpans, Span

_EVALUATIONS = {Kind.BASELINE, Kind.TRIAL, Kind.PART, Kind.DUPLICATE}


def seconds_of_a_lost_rank(launch: LaunchSpans, killed: float) -> float:
    """What the others idled from the kill to the last trial, on average, and what was done of the dead rank's trial.

    `killed` is in seconds since 1970. Raises `ValueError` where no rank told a trial after it.
    """
    at = killed - launch.began
    trials = [s for s in launch.spans if s.kind in _EVALUATIONS - {Kind.BASELINE}]
    lost = [s for s in trials if s.outcome == Ending.LOST]
    dead = {s.rank for s in lost}  # its last result may come after the kill
    told = [s for s in trials if s.outcome == Ending.TOLD and s.end > at and s.rank not in dead]
    if not told:
        raise ValueError(f"nothing was told after the rank was killed, {at:.2f} s after the launch; kill it earlier")
    ranks = len({s.rank for s in told})
    end = max(s.end for s in told)
    busy = sum(s.end - max(s.start, at) for s in told)
    return end - at - busy / ranks + sum(max(at - s.start, 0.0) for s in lost)


def repeated(lines: Sequence[str], launches: Sequence[LaunchSpans]) -> int:
    """Evaluations of trials that were told before they began.

    `lines` is the whole journal, `launches` the last ones of it: a launcher's end takes the timeline with it.
    """
    known = _told_before_each_launch(lines)[-len(launches) :]
    return sum(_again(launch.spans, before) for launch, before in zip(launches, known, strict=True))


def _told_before_each_launch(lines: Sequence[str]) -> list[int]:
    told, known = 0, []
    for record in map(decode, lines):
        told += isinstance(record, Trial)
        if isinstance(record, Launched):
            known.append(told)
    return known


def _again(spans: Sequence[Span], told_before: int) -> int:
    """A trial's first result ends it: what begins later is again."""
    evaluations = [s for s in spans if s.kind in _EVALUATIONS]
    ended: dict[int, float] = {}
    for span in evaluations:
        if span.outcome in (Ending.TOLD, Ending.FAILED) and not span.part:
            ended[span.index] = min(span.end, ended.get(span.index, span.end))
    late = (s.index < told_before or s.start > ended.get(s.index, s.start) for s in evaluations)
    return sum(late)
