"""The trace's structure, as the Trace Event Format asks for it."""

import itertools
import json
from collections import defaultdict
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from quantuner.api.timeline import Ending, Kind, LaunchSpans, Span
from quantuner.api.trace import chrome_trace, title
from tests.unit.api.test_timeline import spans

FIRST = LaunchSpans(
    began=1000.0,
    ranks=2,
    hosts=("a", "b"),
    spans=[Span(0, Kind.BASELINE, 0, "", 0.5, 1.0, Ending.TOLD), Span(1, Kind.TRIAL, 1, "", 1.0, 3.25, Ending.LOST)],
)
SECOND = LaunchSpans(began=1010.0, ranks=2, spans=[Span(1, Kind.TRIAL, 1, "", 0.25, 1.5, Ending.TOLD)], ended=2.0)


def test_spans_are_complete_events_in_microseconds_of_one_clock() -> None:
    events = [event for event in chrome_trace([FIRST, SECOND], "digits")["traceEvents"] if event["ph"] == "X"]
    assert [(e["name"], e["cat"], e["tid"], e["ts"], e["dur"], e["cname"], e["args"]["launch"]) for e in events] == [
        ("baseline", "baseline", 0, 500_000, 500_000, "good", 1),
        ("trial 1", "trial", 1, 1_000_000, 2_250_000, "black", 1),
        ("trial 1", "trial", 1, 10_250_000, 1_250_000, "good", 2),
    ]
    assert events[1]["args"] == {"index": 1, "part": "", "outcome": "lost", "launch": 1}


def test_the_process_and_its_threads_have_names() -> None:
    events = [event for event in chrome_trace([FIRST, SECOND], "digits")["traceEvents"] if event["ph"] == "M"]
    assert [(e["name"], e["tid"], e["args"]) for e in events] == [
        ("process_name", 0, {"name": "quantuner digits"}),
        ("thread_name", 0, {"name": "rank 0 (a)"}),
        ("thread_sort_index", 0, {"sort_index": 0}),
        ("thread_name", 1, {"name": "rank 1 (b)"}),
        ("thread_sort_index", 1, {"sort_index": 1}),
    ]


def test_launches_and_their_losses_are_marked() -> None:
    events = [event for event in chrome_trace([FIRST, SECOND], "digits")["traceEvents"] if event["ph"] == "i"]
    assert [(e["name"], e["ts"], e["s"]) for e in events] == [
        ("launch 1", 0, "g"),
        ("launch 1 ended", 3_250_000, "g"),
        ("launch 2", 10_000_000, "g"),
    ]
    assert events[1]["args"] == {"orderly": False}


def test_a_derived_trace_says_so() -> None:
    assert chrome_trace([], "digits", derived=True)["otherData"] == {"search": "digits", "derived": True}


def test_titles() -> None:
    names = {kind: title(Span(1, kind, 7, "2/3", 0.0, 1.0, Ending.TOLD)) for kind in Kind}
    assert names == {
        Kind.SETUP: "setup",
        Kind.BASELINE: "baseline",
        Kind.TRIAL: "trial 7",
        Kind.PART: "part 2/3 of trial 7",
        Kind.DUPLICATE: "duplicate of trial 7",
        Kind.VERIFY: "verify trial 7",
    }


forward = spans.map(lambda span: replace(span, start=min(span.start, span.end), end=max(span.start, span.end)))


@given(st.lists(st.lists(forward, max_size=8), max_size=3))
def test_any_timeline_gives_a_trace_that_viewers_read(recorded: list[list[Span]]) -> None:
    launches = [LaunchSpans(began=100.0 * i, ranks=64, spans=own) for i, own in enumerate(recorded)]
    trace = json.loads(json.dumps(chrome_trace(launches, "any", derived=False), allow_nan=False))
    threads: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for event in trace["traceEvents"]:
        assert {"ph", "name", "pid", "tid", "args"} <= event.keys()
        if event["ph"] == "M":
            continue
        assert isinstance(event["ts"], int)
        if event["ph"] == "X":
            assert isinstance(event["dur"], int)
            assert event["dur"] >= 0
            threads[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert sum(map(len, threads.values())) == sum(map(len, recorded))
    for events in threads.values():
        assert all(one[1] <= following[0] for one, following in itertools.pairwise(events))
