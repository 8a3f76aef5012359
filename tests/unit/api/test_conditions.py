"""Conditions: spelled as the API spells them, their transition times kept, one word for people."""

from typing import Any

import pytest

from quantuner.api.conditions import MESSAGE_LIMIT, ConditionType, Failure, Reason, condition, merge, phase_of, shorten

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def true(type_: ConditionType, now: str = NOW, reason: str = "Because") -> dict[str, Any]:
    return condition(type_, True, reason, "", 1, now)


@pytest.mark.parametrize(("status", "spelled"), [(True, "True"), (False, "False")])
def test_a_condition_as_the_api_spells_it(status: bool, spelled: str) -> None:
    assert condition(ConditionType.RUNNING, status, Reason.SEARCHING, "3 ranks", 7, NOW) == {
        "type": "Running",
        "status": spelled,
        "observedGeneration": 7,
        "lastTransitionTime": NOW,
        "reason": "Searching",
        "message": "3 ranks",
    }


def test_a_long_message_is_cut_and_marked() -> None:
    message = condition(ConditionType.FAILED, True, Failure.TASK_RAISED, "x" * 5000, 1, NOW)["message"]
    assert len(message) == MESSAGE_LIMIT
    assert message.endswith("…")


@pytest.mark.parametrize(("text", "short"), [("", ""), ("abc", "abc"), ("abcd", "ab…")])
def test_shortening(text: str, short: str) -> None:
    assert shorten(text, 3) == short


def test_a_status_that_stays_keeps_its_time_and_takes_the_new_reason() -> None:
    merged = merge([true(ConditionType.RUNNING)], [true(ConditionType.RUNNING, LATER, "Other")])
    assert (merged[0]["lastTransitionTime"], merged[0]["reason"]) == (NOW, "Other")


def test_a_status_that_changes_takes_the_new_time() -> None:
    before = condition(ConditionType.RUNNING, False, "No", "", 1, NOW)
    assert merge([before], [true(ConditionType.RUNNING, LATER)])[0]["lastTransitionTime"] == LATER


def test_merging_keeps_the_new_order_and_drops_what_is_gone() -> None:
    old = [true(ConditionType.SUSPENDED), true(ConditionType.RUNNING)]
    new = [true(ConditionType.FAILED, LATER), true(ConditionType.RUNNING, LATER)]
    assert [c["type"] for c in merge(old, new)] == ["Failed", "Running"]


@pytest.mark.parametrize(
    ("types", "phase"),
    [
        ([], "Pending"),
        ([ConditionType.ACCEPTED], "Starting"),
        ([ConditionType.ACCEPTED, ConditionType.RUNNING], "Running"),
        ([ConditionType.RUNNING, ConditionType.SUSPENDED], "Suspended"),
        ([ConditionType.RUNNING, ConditionType.COMPLETE], "Complete"),
        ([ConditionType.TARGET_MET, ConditionType.COMPLETE], "Complete"),
        ([ConditionType.COMPLETE, ConditionType.FAILED], "Failed"),
    ],
)
def test_the_phase_is_the_first_that_holds(types: list[ConditionType], phase: str) -> None:
    assert phase_of([true(type_) for type_ in types]) == phase


def test_a_reason_means_one_thing() -> None:
    assert not {str(reason) for reason in Reason} & {str(failure) for failure in Failure}
