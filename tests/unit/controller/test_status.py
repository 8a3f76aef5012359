from __future__ import annotations

from typing import Any

import pytest

from quantuner.api.conditions import PHASES, phase_of
from quantuner.controller.decide import decide
from quantuner.controller.status import compose, difference, dropped, rejected
from quantuner.controller.verdict import Stance
from tests.unit.controller.making import (
    EARLIER,
    FINISHED,
    NOW,
    RUNNING_PODS,
    SEARCHED,
    SETTINGS,
    condition,
    history,
    job,
    observation,
    resource,
    trial,
)

BEST_YAML = """
trial: 1
accuracy: 0.98
summary: {defaults: {Conv2d: static/asym/kl}, exceptions: {layer1.conv1: fp32}}
config: {}
"""


def composed(**more: Any) -> dict[str, Any]:
    seen = observation(**more)
    return compose(seen, decide(seen, {}, SETTINGS), NOW)


def test_tells_what_the_journal_tells() -> None:
    status = composed(history=history(*SEARCHED, trial(2, None), end=FINISHED), best_yaml=BEST_YAML)
    assert status["baseline"] == {"accuracy": 0.98, "seconds": 0.5}
    assert status["best"]["trial"] == 1
    assert status["best"]["config"]["exceptions"] == {"layer1.conv1": "fp32"}
    assert status["best"]["configRef"] == {"name": "digits-result", "key": "best.yaml"}
    assert status["trials"] == {"completed": 1, "failed": 1, "running": 0, "max": 100}
    assert (status["startTime"], status["completionTime"]) == (EARLIER, NOW)


def test_always_says_which_generation_it_answers() -> None:
    status = composed()
    assert status["observedGeneration"] == 3
    assert {c["observedGeneration"] for c in status["conditions"]} == {3}


def test_has_each_condition_once() -> None:
    types = [c["type"] for c in composed()["conditions"]]
    assert types == ["Accepted", "Running", "Suspended", "TargetMet", "Complete", "Failed"]


def test_counts_workers_that_are_ready() -> None:
    status = composed(mpijob=job(resource(), "Created"), pods=RUNNING_PODS)
    assert status["workers"] == 2


def test_the_time_of_a_transition_is_that_of_a_change() -> None:
    before = {"conditions": [condition("Accepted", "Accepted"), condition("Running", "Searching")]}
    times = {c["type"]: c["lastTransitionTime"] for c in composed(status=before)["conditions"]}
    assert (times["Accepted"], times["Running"]) == (EARLIER, NOW)


@pytest.mark.parametrize(
    ("true", "want"),
    [
        ((), "Pending"),
        (("Accepted",), "Starting"),
        (("Accepted", "Running"), "Running"),
        (("Accepted", "Suspended"), "Suspended"),
        (("Accepted", "TargetMet", "Complete"), "Complete"),
        (("Accepted", "Failed"), "Failed"),
    ],
)
def test_the_phase_follows_from_the_conditions(true: tuple[str, ...], want: str) -> None:
    assert phase_of([condition(t, "R") for t in true]) == want
    assert want in PHASES


def test_a_rejected_resource_keeps_what_is_known_of_it() -> None:
    body = {**resource(), "status": {"workers": 2, "conditions": [condition("Running", "Searching")]}}
    status = rejected(body, Stance(False, "Invalid", "spec.workers: 0 is less than 1"), NOW)
    assert status["workers"] == 2
    assert [(c["type"], c["status"]) for c in status["conditions"]] == [("Accepted", "False"), ("Running", "True")]


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({}, {}, {}),
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": 2, "b": 0}, {"a": 2, "b": 0}),
        ({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"c": 1}}, {"a": None, "b": {"d": None}}),
        ({"l": [1, 2]}, {"l": [1]}, {"l": [1]}),
        ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_the_patch_leads_from_the_old_status_to_the_new(
    old: dict[str, Any], new: dict[str, Any], patch: dict[str, Any]
) -> None:
    assert difference(old, new) == patch


def test_a_field_that_the_server_drops_is_noticed() -> None:
    sent = {"phase": "Running", "best": {"trial": 1, "novel": 2}, "conditions": []}
    answer = {"phase": "Running", "best": {"trial": 1}, "conditions": []}
    assert list(dropped(sent, answer, "status")) == ["status.best.novel"]
    assert list(dropped(sent, sent, "status")) == []
