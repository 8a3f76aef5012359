from __future__ import annotations

import pytest

from quantuner.controller.objects import Key
from quantuner.controller.observe import Observation
from quantuner.controller.pods import Trouble, TroubleKind
from quantuner.controller.symptoms import LIMITS, Onsets, Symptom, lasts, patience, symptoms
from quantuner.controller.verdict import RESYNC_SECONDS
from tests.unit.controller.making import (
    FINISHED,
    RUNNING_PODS,
    SEARCHED,
    history,
    job,
    observation,
    resource,
    worker,
)

KEY = Key("ns", "digits")
PULL = Trouble(TroubleKind.IMAGE, "x")
START = Trouble(TroubleKind.START, "x")
PULLING, STARTING = worker(0, ready=False, trouble=PULL), worker(0, ready=False, trouble=START)


@pytest.mark.parametrize(
    ("seen", "want"),
    [
        (observation(), set()),
        (observation(mpijob=job(resource())), {Symptom.SILENCE}),
        (observation(mpijob=job(resource(), "Created"), pods=RUNNING_PODS), set()),
        (observation(mpijob=job(resource(), "Created"), pods=[worker(0)]), {Symptom.TOO_FEW_PODS}),
        (observation(mpijob=job(resource(), "Created"), pods=[worker(0), worker(1)]), {Symptom.TOO_FEW_PODS}),
        (observation(mpijob=job(resource(), "Created"), pods=[worker(0), worker(1, ready=False)]), set()),
        (observation(mpijob=job(resource(), "Created", "Suspended")), set()),
        (observation(mpijob=job(resource(), "Created"), pods=[PULLING, worker(1)]), {Symptom.IMAGE}),
        (observation(mpijob=job(resource(), "Created"), pods=[STARTING, worker(1)]), {Symptom.START}),
        (
            observation(mpijob=job(resource(), "Created"), pods=RUNNING_PODS, history=history(*SEARCHED, end=FINISHED)),
            {Symptom.LINGERING},
        ),
        (observation(mpijob=job(resource(), "Created", "Succeeded", ended=True)), set()),
    ],
    ids=[
        "no job",
        "unacknowledged",
        "well",
        "too few",
        "no launcher",
        "workers come up",
        "queued",
        "pull",
        "start",
        "lingering",
        "finished",
    ],
)
def test_symptoms(seen: Observation, want: set[Symptom]) -> None:
    assert set(symptoms(seen)) == want


def test_onsets_age_while_a_symptom_stays_and_begin_anew_when_it_returns() -> None:
    now = [0.0]
    onsets = Onsets(lambda: now[0])
    assert onsets.ages(KEY, [Symptom.IMAGE]) == {Symptom.IMAGE: 0.0}
    now[0] = 10.0
    assert onsets.ages(KEY, [Symptom.IMAGE, Symptom.START]) == {Symptom.IMAGE: 10.0, Symptom.START: 0.0}
    assert onsets.ages(KEY, []) == {}
    now[0] = 20.0
    assert onsets.ages(KEY, [Symptom.IMAGE]) == {Symptom.IMAGE: 0.0}


def test_a_forgotten_resource_begins_anew() -> None:
    now = [0.0]
    onsets = Onsets(lambda: now[0])
    onsets.ages(KEY, [Symptom.IMAGE])
    onsets.forget(KEY)
    now[0] = 99.0
    assert onsets.ages(KEY, [Symptom.IMAGE]) == {Symptom.IMAGE: 0.0}


def test_a_symptom_lasts_from_its_limit_on() -> None:
    limit = LIMITS[Symptom.IMAGE]
    assert not lasts({}, Symptom.IMAGE)
    assert not lasts({Symptom.IMAGE: limit - 0.1}, Symptom.IMAGE)
    assert lasts({Symptom.IMAGE: limit}, Symptom.IMAGE)


def test_patience_ends_with_the_next_limit() -> None:
    assert patience({}) == RESYNC_SECONDS
    assert patience({Symptom.IMAGE: 20.0, Symptom.START: 20.0}) == LIMITS[Symptom.IMAGE] - 20.0
    assert patience({Symptom.IMAGE: LIMITS[Symptom.IMAGE] - 0.01}) == 1.0
    assert patience({Symptom.IMAGE: LIMITS[Symptom.IMAGE]}) == RESYNC_SECONDS
