"""What an MPIJob says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from quantuner.controller.objects import Manifest


class JobState(StrEnum):
    ABSENT = "absent"
    TERMINATING = "terminating"  # deleted, but its pods are not gone yet
    UNACKNOWLEDGED = "unacknowledged"  # mpi-operator has said nothing: it refuses silently, or is not there
    SUSPENDED = "suspended"  # by who admits jobs, as Kueue: its pods are ended, or not created yet
    ACTIVE = "active"
    SUCCEEDED = "succeeded"  # the launcher exited 0, which proves nothing
    FAILED = "failed"

    def is_finished(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED)


def state_of(job: Manifest | None) -> JobState:
    if job is None:
        return JobState.ABSENT
    if "deletionTimestamp" in job["metadata"]:
        return JobState.TERMINATING
    conditions = _conditions(job)
    # An evicted launcher's Failed has no completionTime and can be taken back.
    if job.get("status", {}).get("completionTime"):
        if _is_true(conditions, "Succeeded"):
            return JobState.SUCCEEDED
        if _is_true(conditions, "Failed"):
            return JobState.FAILED
    if _is_true(conditions, "Suspended"):
        return JobState.SUSPENDED
    return JobState.ACTIVE if conditions else JobState.UNACKNOWLEDGED


def failure_of(job: Manifest) -> str:
    """Reason and message of the MPIJob's Failed condition."""
    failed = _conditions(job).get("Failed", {})
    return f"{failed.get('reason', 'Failed')}: {failed.get('message', 'no message')}"


def _conditions(job: Manifest) -> dict[str, Mapping[str, Any]]:
    return {c["type"]: c for c in job.get("status", {}).get("conditions") or ()}


def _is_true(conditions: Mapping[str, Mapping[str, Any]], type_: str) -> bool:
    return conditions.get(type_, {}).get("status") == "True"
