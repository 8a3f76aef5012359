"""Condition types and reasons, and the one way to set a condition.

`phase` is derived from the conditions for people to read; no decision reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

MESSAGE_LIMIT = 2000  # characters; a status is read in a terminal


class ConditionType(StrEnum):
    ACCEPTED = "Accepted"  # the resource can be acted on: its ConfigMap exists, its names are free
    RUNNING = "Running"  # ranks are searching
    SUSPENDED = "Suspended"  # spec.suspend is honoured
    TARGET_MET = "TargetMet"  # a configuration meets the accuracy criterion, proven by its saved model
    COMPLETE = "Complete"  # the journal says finished; exit codes prove nothing
    FAILED = "Failed"  # the search cannot go on until somebody acts


class Reason(StrEnum):
    """Reasons of conditions other than failures."""

    ACCEPTED = "Accepted"
    SEARCHING = "Searching"
    WAITING_FOR_PODS = "WaitingForPods"
    UNSCHEDULABLE = "Unschedulable"  # no node takes a pod
    QUEUED = "Queued"  # whoever admits jobs to the cluster, as Kueue, holds the MPIJob back
    INVALID = "Invalid"  # it breaks the CRD that this operator ships with
    REFUSED = "Refused"  # the API server does not let the operator write what it must
    RELAUNCHING = "Relaunching"  # a pod was lost; the search resumes from its journal
    SUSPENDED = "Suspended"
    NOT_SUSPENDED = "NotSuspended"
    IN_PROGRESS = "InProgress"
    TARGET_MET = "TargetMet"
    TARGET_NOT_MET = "TargetNotMet"
    FINISHED = "Finished"
    STOPPED = "Stopped"  # because of a failure
    NO_FAILURE = "NoFailure"


class Failure(StrEnum):
    """Reasons of the Failed condition: who has to act is said in the message."""

    # found by a rank and written to the journal
    TASK_IMPORT_FAILED = "TaskImportFailed"
    TASK_CALLABLE_MISSING = "TaskCallableMissing"
    TASK_RAISED = "TaskRaised"
    TASK_INVALID = "TaskInvalid"  # it returned no Task
    MODEL_NOT_CAPTURABLE = "ModelNotCapturable"
    CALIBRATION_FAILED = "CalibrationFailed"
    TRAINING_FAILED = "TrainingFailed"
    EVALUATION_FAILED = "EvaluationFailed"
    EVALUATION_NOT_A_NUMBER = "EvaluationNotANumber"
    NOTHING_TO_QUANTIZE = "NothingToQuantize"
    OVERRIDE_MATCHES_NOTHING = "OverrideMatchesNothing"
    UNKNOWN_STRATEGY = "UnknownStrategy"
    STRATEGY_RAISED = "StrategyRaised"
    CONFIGURATION_INVALID = "ConfigurationInvalid"  # a strategy asked for what the space does not hold
    ALL_TRIALS_FAILED = "AllTrialsFailed"
    VERIFICATION_FAILED = "VerificationFailed"  # the reloaded model does not have the trial's accuracy
    RANKS_DIFFER = "RanksDiffer"  # in what decides an accuracy: weights, data, libraries, CPU, threads, code
    JOURNAL_MISMATCH = "JournalMismatch"
    WRITE_FAILED = "WriteFailed"  # journal or artifact
    RANKS_LOST = "RanksLost"  # relaunched too often without progress
    INTERNAL_ERROR = "InternalError"
    # found by the operator
    TASK_CONFIGMAP_MISSING = "TaskConfigMapMissing"
    NAME_CONFLICT = "NameConflict"
    TEMPLATE_CONFLICT = "TemplateConflict"  # spec.template sets what Quantuner sets itself
    IMAGE_MISSING = "ImageMissing"  # neither spec.image nor an operator default
    IMAGE_PULL_FAILED = "ImagePullFailed"
    POD_REFUSED = "PodRefused"  # the container cannot be created or started
    MPIJOB_REFUSED = "MPIJobRefused"
    LAUNCHER_FAILED = "LauncherFailed"


def condition(
    type_: ConditionType, status: bool, reason: str, message: str, generation: int, now: str
) -> dict[str, Any]:
    """A condition as the API spells it; `now` is an RFC 3339 time."""
    return {
        "type": type_.value,
        "status": str(status),
        "observedGeneration": generation,
        "lastTransitionTime": now,
        "reason": str(reason),
        "message": shorten(message, MESSAGE_LIMIT),
    }


def merge(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`new` in its order, keeping the transition time of every condition whose status stays."""
    before = {c["type"]: c for c in old}
    merged = []
    for c in new:
        previous = before.get(c["type"])
        same = previous is not None and previous.get("status") == c["status"]
        merged.append({**c, "lastTransitionTime": previous["lastTransitionTime"]} if same and previous else dict(c))
    return merged


_PHASES = {
    ConditionType.FAILED: "Failed",
    ConditionType.COMPLETE: "Complete",
    ConditionType.SUSPENDED: "Suspended",
    ConditionType.RUNNING: "Running",
    ConditionType.ACCEPTED: "Starting",
}
_NO_PHASE = "Pending"
PHASES = (_NO_PHASE, *reversed(_PHASES.values()))


def phase_of(conditions: Sequence[Mapping[str, Any]]) -> str:
    """One word for people: that of the first condition in the order of `_PHASES` that is True."""
    true = {c["type"] for c in conditions if c["status"] == "True"}
    return next((word for type_, word in _PHASES.items() if type_ in true), _NO_PHASE)


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, the end cut and marked."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
