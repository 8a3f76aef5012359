"""What a journal alone says about a resource's status."""

from dataclasses import replace
from typing import Any

import pytest
import yaml

from quantuner.api.journal import Failed, Finished, History, Outcome, Trial
from quantuner.api.result import OUTCOMES, end_conditions, search_status
from tests.unit.records import TIME, launched, told, tuning

NOW = "2026-03-04T05:06:07Z"
REF = {"name": "digits-result", "key": "best.yaml"}
END = Finished(outcome=Outcome.TARGET_MET, best=2, accuracy=0.89, artifact="claim/digits", time=NOW)


def history(*trials: Trial, end: Finished | Failed | None = None) -> History:
    return History(launches=[launched()], trials=list(trials), end=end)


def described(trial: int) -> str:
    return yaml.safe_dump({"trial": trial, "summary": {"defaults": {"Linear": "fp32"}, "exceptions": {}}})


BEST = told(2, 0.89, meets=True, running=3, objectives={"performance": 0.5}, cost=0.25, size=1.5)
TOLD = (told(0, 0.9, seconds=2.0, size=4.0), told(1, None), BEST)


def test_the_status_of_a_finished_search() -> None:
    assert search_status(tuning(), history(*TOLD, end=END), described(2), REF) == {
        "startTime": TIME,
        "completionTime": NOW,
        "baseline": {"accuracy": 0.9, "seconds": 2.0},
        "best": {
            "trial": 2,
            "accuracy": 0.89,
            "meetsCriterion": True,
            "objectives": {"performance": 0.5},
            "cost": 0.25,
            "size": 1.5,
            "config": {"defaults": {"Linear": "fp32"}, "exceptions": {}},
            "configRef": REF,
            "artifact": "claim/digits",
        },
        "pareto": [
            {"trial": 2, "accuracy": 0.89, "cost": 0.25, "size": 1.5},
            {"trial": 0, "accuracy": 0.9, "cost": 1.0, "size": 4.0},
        ],
        "trials": {"completed": 1, "failed": 1, "running": 0, "max": 100},
    }


def test_before_the_first_launch_there_are_only_counts() -> None:
    counts = {"completed": 0, "failed": 0, "running": 0, "max": 100}
    assert search_status(tuning(), History(), None, REF) == {"trials": counts}


def test_while_it_runs_trials_are_under_way_and_nothing_is_complete() -> None:
    status = search_status(tuning(), history(*TOLD), described(2), REF)
    assert status["trials"]["running"] == 3
    assert "completionTime" not in status
    assert "artifact" not in status["best"]


@pytest.mark.parametrize("best_yaml", [None, "", described(1)], ids=["none", "empty", "of an earlier best"])
def test_a_configuration_of_another_trial_is_not_shown_as_the_best_ones(best_yaml: str | None) -> None:
    best = search_status(tuning(), history(*TOLD), best_yaml, REF)["best"]
    assert "config" not in best
    assert "configRef" not in best


def of_two(**summary: Any) -> str:
    return yaml.safe_dump({"trial": 2, "summary": summary}, sort_keys=False)


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\n" + described(2)
MERGES = "a: &a {x: y}\nb: {<<: [*a, *a]}\n" + described(2)


@pytest.mark.parametrize(
    "best_yaml",
    [
        pytest.param("}", id="no YAML"),
        pytest.param("7", id="a number"),
        pytest.param("[" * 5000, id="nested without end"),
        pytest.param(BOMB, id="aliases, which stand for more than is written"),
        pytest.param(MERGES, id="merged aliases"),
        pytest.param("trial: 2\nsummary: text", id="a text as summary"),
        pytest.param(of_two(defaults={}), id="no exceptions"),
        pytest.param(of_two(defaults={}, exceptions={}, more={}), id="more than a summary has"),
        pytest.param(of_two(defaults={"Linear": ["fp32"]}, exceptions={}), id="no word for a type"),
        pytest.param(of_two(defaults={}, exceptions={1: "fp32"}), id="an op without a name"),
        pytest.param(of_two(defaults={"Linear": "x" * 200_000}, exceptions={}), id="longer than any"),
        pytest.param("trial: 2026-13-45\n", id="no day"),
    ],
)
def test_what_no_search_writes_is_not_shown(best_yaml: str) -> None:
    assert "config" not in search_status(tuning(), history(*TOLD), best_yaml, REF)["best"]


def test_of_a_long_configuration_its_summary_alone_is_read() -> None:
    text = described(2) + "config: " + "[" * 5000
    assert search_status(tuning(), history(*TOLD), text, REF)["best"]["config"]["defaults"] == {"Linear": "fp32"}


def by_type(tuning_history: History) -> dict[str, dict[str, Any]]:
    return {c["type"]: c for c in end_conditions(tuning(), tuning_history, NOW)}


@pytest.mark.parametrize("meets", [True, False], ids=["met", "missed"])
@pytest.mark.parametrize("outcome", Outcome)
def test_a_search_that_ends_without_meeting_the_target_is_complete_and_not_failed(
    outcome: Outcome, meets: bool
) -> None:
    end = Finished(outcome=outcome, best=2, accuracy=0.89, artifact="", time=NOW)
    conditions = by_type(history(*TOLD[:2], replace(BEST, meets=meets), end=end))
    met = str(meets)
    assert {t: c["status"] for t, c in conditions.items()} == {"TargetMet": met, "Complete": "True", "Failed": "False"}
    assert conditions["Complete"]["message"] == OUTCOMES[outcome].format(best=2)
    assert conditions["TargetMet"]["message"] == "baseline 0.9, target 0.891, best 0.89 (trial 2)"


def test_a_failure_keeps_its_reason_and_message() -> None:
    conditions = by_type(history(*TOLD, end=Failed(reason="TaskRaised", message="at task.py:3", time=NOW)))
    assert {t: c["status"] for t, c in conditions.items()} == {
        "TargetMet": "False", "Complete": "False", "Failed": "True"
    }  # fmt: skip
    assert (conditions["Failed"]["reason"], conditions["Failed"]["message"]) == ("TaskRaised", "at task.py:3")


def test_a_search_under_way_is_neither() -> None:
    conditions = by_type(History())
    assert {c["status"] for c in conditions.values()} == {"False"}
    assert conditions["TargetMet"]["message"] == "no baseline yet"
