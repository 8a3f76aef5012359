from __future__ import annotations

from typing import Any

import pytest

from quantuner.controller.decide import decide
from quantuner.controller.events import MESSAGE_BYTES, build_events, with_tail
from quantuner.controller.observe import Observation
from quantuner.controller.status import compose
from tests.unit.controller.making import (
    CRASHED,
    FINISHED,
    NOW,
    RUNNING_PODS,
    SEARCHED,
    SETTINGS,
    UID,
    history,
    job,
    observation,
    resource,
    trial,
)

FAILING = trial(1, None, error="RuntimeError: no kernel", rank=2)


def told(seen: Observation) -> list[tuple[str, str, str]]:
    status = compose(seen, decide(seen, {}, SETTINGS), NOW)
    return [(e["type"], e["reason"], e["message"]) for e in build_events(seen, status, NOW)]


def running(**more: Any) -> Observation:
    return observation(mpijob=job(resource(), "Created"), pods=RUNNING_PODS, **more)


@pytest.mark.parametrize(
    ("seen", "want"),
    [
        (running(history=history(trial(0))), [("Normal", "Searching")]),
        (observation(history=history(*SEARCHED, end=FINISHED)), [("Normal", "TargetMet")]),
        (observation(history=history(end=CRASHED)), [("Warning", "TaskRaised")]),
        (running(history=history(trial(0), FAILING)), [("Normal", "Searching"), ("Warning", "TrialsFailed")]),
        (observation(), []),
    ],
    ids=["starts", "completes", "fails", "a trial fails", "waits"],
)
def test_what_happens_is_told(seen: Observation, want: list[tuple[str, str]]) -> None:
    assert [(type_, reason) for type_, reason, _ in told(seen)] == want


def test_nothing_is_told_twice() -> None:
    seen = observation(history=history(trial(0), FAILING, end=CRASHED))
    status = compose(seen, decide(seen, {}, SETTINGS), NOW)
    again = observation(history=seen.history, status=status)
    assert told(again) == []


def test_a_workers_traceback_is_in_the_event() -> None:
    ((_, _, message),) = told(observation(history=history(end=CRASHED)))
    assert message == "the task raised\nTraceback\nValueError: no"


def test_failed_trials_are_told_at_the_first_the_tenth_the_hundredth() -> None:
    many = [trial(0), *(trial(i, None, error=f"e{i}") for i in range(1, 13))]
    before = {"trials": {"failed": 1}}
    (message,) = [
        m for _, reason, m in told(running(history=history(*many), status=before)) if reason == "TrialsFailed"
    ]
    assert message == "12 of 12 trials failed so far; trial 12 on rank 0: e12"


def test_an_event_is_named_after_what_it_tells() -> None:
    seen = observation(history=history(end=CRASHED))
    status = compose(seen, decide(seen, {}, SETTINGS), NOW)
    (first,) = build_events(seen, status, NOW)
    (later,) = build_events(seen, status, "2026-11-24T00:00:00Z")
    assert first["metadata"]["name"] == later["metadata"]["name"]
    assert first["involvedObject"]["uid"] == UID


@pytest.mark.parametrize("message", ["short", "m" * 3000, "ü" * 900])
@pytest.mark.parametrize("traceback", ["", "Traceback …\nValueError: x", "é\n" * 2000 + "ValueError: x"])
def test_an_event_holds_at_most_1024_bytes_and_the_tracebacks_end(message: str, traceback: str) -> None:
    text = with_tail(message, traceback)
    if traceback:
        assert len(text.encode()) <= MESSAGE_BYTES
        assert text.endswith("ValueError: x")
    assert text.startswith(message[:200])
