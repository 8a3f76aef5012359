"""States that are normal for a while and mean trouble when they last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum

from quantuner.controller.job import JobState, state_of
from quantuner.controller.objects import Key
from quantuner.controller.observe import Observation
from quantuner.controller.pods import Role, TroubleKind, ready_workers, worst_trouble
from quantuner.controller.verdict import RESYNC_SECONDS


class Symptom(StrEnum):
    IMAGE = "image"  # an image cannot be pulled: a registry may be back in seconds
    START = "start"  # a container cannot start: its Secret may be about to be created
    SILENCE = "silence"  # mpi-operator has not acknowledged the MPIJob
    TOO_FEW_PODS = "too few pods"  # they cannot be created
    LINGERING = "lingering"  # the search has ended and its pods run on


Ages = Mapping[Symptom, float]
"""Seconds for which each present symptom has been seen without interruption."""

LIMITS: Ages = {
    Symptom.IMAGE: 60.0,
    Symptom.START: 300.0,
    Symptom.SILENCE: 30.0,
    Symptom.TOO_FEW_PODS: 60.0,
    Symptom.LINGERING: 60.0,
}


def symptoms(o: Observation) -> Iterator[Symptom]:
    state = state_of(o.mpijob)
    if state is JobState.UNACKNOWLEDGED:
        yield Symptom.SILENCE
    if state is not JobState.ACTIVE:
        return
    if o.history.end is not None:
        yield Symptom.LINGERING
    trouble = worst_trouble(o.pods)
    if trouble is not None and trouble.kind is TroubleKind.IMAGE:
        yield Symptom.IMAGE
    if trouble is not None and trouble.kind is TroubleKind.START:
        yield Symptom.START
    roles = Counter(p.role for p in o.pods)
    launchable = ready_workers(o.pods) >= o.tuning.workers  # the launcher's pod comes when all workers are ready
    if roles[Role.WORKER] < o.tuning.workers or (launchable and not roles[Role.LAUNCHER]):
        yield Symptom.TOO_FEW_PODS


class Onsets:
    """Remembers since when each symptom is seen. In memory only: a restart begins the patience anew."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[Key, dict[Symptom, float]] = {}

    def ages(self, key: Key, present: Iterable[Symptom]) -> Ages:
        """Forgets the symptoms that are no longer present."""
        now = self._clock()
        before = self._since.get(key, {})
        since = {symptom: before.get(symptom, now) for symptom in present}
        self._since[key] = since
        return {symptom: now - onset for symptom, onset in since.items()}

    def forget(self, key: Key) -> None:
        self._since.pop(key, None)


def lasts(ages: Ages, symptom: Symptom) -> bool:
    return ages.get(symptom, -1.0) >= LIMITS[symptom]


def patience(ages: Ages) -> float:
    """Seconds until the next symptom has lasted too long, or until the next look anyway."""
    left = [LIMITS[symptom] - age for symptom, age in ages.items() if age < LIMITS[symptom]]
    return max(1.0, min(left)) if left else RESYNC_SECONDS
