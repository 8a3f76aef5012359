"""A timeline for trace viewers: Perfetto (ui.perfetto.dev) and chrome://tracing.

Source: "Trace Event Format", the Chromium project; JSON object form. Times are in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from quantuner.api.timeline import Ending, Kind, LaunchSpans, Span
from quantuner.api.utilization import by_rank, offsets, one_at_a_time

PROCESS = 1
_COLOURS: dict[str, str] = {
    Ending.TOLD: "good",
    Ending.ABANDONED: "grey",
    Ending.FAILED: "terrible",
    Ending.LOST: "black",
}
"""Names that chrome://tracing reserves; Perfetto chooses by the event's name."""
_WORDS: dict[str, str] = {Kind.DUPLICATE: "duplicate of trial", Kind.VERIFY: "verify trial"}


def chrome_trace(launches: Sequence[LaunchSpans], name: str, *, derived: bool = False) -> dict[str, Any]:
    """A thread for each rank, an event for each span; time 0 is the start of the first launch."""
    return {
        "displayTimeUnit": "ms",
        "otherData": {"search": name, "derived": derived},
        "traceEvents": [*_names(launches, name), *_launches(launches), *_spans(launches)],
    }


def _names(launches: Sequence[LaunchSpans], name: str) -> Iterator[dict[str, Any]]:
    yield _metadata("process_name", 0, name=f"quantuner {name}")
    for rank in range(max((launch.ranks for launch in launches), default=0)):
        host = next((launch.hosts[rank] for launch in reversed(launches) if rank < len(launch.hosts)), "")
        yield _metadata("thread_name", rank, name=f"rank {rank} ({host})" if host else f"rank {rank}")
        yield _metadata("thread_sort_index", rank, sort_index=rank)


def _metadata(kind: str, rank: int, **args: Any) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": PROCESS, "tid": rank, "args": args}


def _launches(launches: Sequence[LaunchSpans]) -> Iterator[dict[str, Any]]:
    for number, (launch, offset) in enumerate(zip(launches, offsets(launches), strict=True), 1):
        yield _instant(f"launch {number}", offset, ranks=launch.ranks, hosts=list(launch.hosts))
        if number < len(launches):
            yield _instant(f"launch {number} ended", offset + launch.seconds, orderly=launch.ended is not None)
        if launch.full:
            yield _instant("recording stopped at its limit", offset + launch.seconds)


def _instant(name: str, at: float, **args: Any) -> dict[str, Any]:
    event = {"ph": "i", "s": "g", "name": name, "cat": "launch", "ts": microseconds(at), "pid": PROCESS, "tid": 0}
    return {**event, "args": args}


def _spans(launches: Sequence[LaunchSpans]) -> Iterator[dict[str, Any]]:
    for number, (launch, offset) in enumerate(zip(launches, offsets(launches), strict=True), 1):
        for rank, spans in sorted(by_rank(launch.spans).items()):
            for span in one_at_a_time(spans):
                start, end = microseconds(offset + span.start), microseconds(offset + span.end)
                yield {
                    "ph": "X",
                    "name": title(span),
                    "cat": span.kind,
                    "ts": start,
                    "dur": end - start,
                    "pid": PROCESS,
                    "tid": rank,
                    "cname": _COLOURS.get(span.outcome, "grey"),
                    "args": {"index": span.index, "part": span.part, "outcome": span.outcome, "launch": number},
                }


def microseconds(seconds: float) -> int:
    """Both ends of a span are rounded alike, so that neighbours do not come to overlap."""
    return round(seconds * 1e6)


def title(span: Span) -> str:
    """What a span was, for people."""
    if span.kind in (Kind.SETUP, Kind.BASELINE):
        return span.kind
    if span.kind == Kind.PART:
        return f"part {span.part} of trial {span.index}"
    return f"{_WORDS.get(span.kind, span.kind)} {span.index}"
