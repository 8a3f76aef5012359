"""What a tuning's pods say: readiness, and troubles in words a person can act on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# Set by mpi-operator.
JOB_LABEL = "training.kubeflow.org/job-name"
ROLE_LABEL = "training.kubeflow.org/job-role"

# Waiting reasons of the kubelet, from its package `images` and `kuberuntime`.
PULL_REASONS = {
    "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable",
    "ErrImageInspect", "SignatureValidationFailed",
}  # fmt: skip
START_REASONS = {
    "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff",
    "PreCreateHookError", "PostStartHookError",
}  # fmt: skip


class Role(StrEnum):
    LAUNCHER = "launcher"
    WORKER = "worker"


class TroubleKind(StrEnum):
    """Why a pod does not run, by who has to act; the most hopeless first."""

    IMAGE = "image"  # the image cannot be pulled
    START = "start"  # the container cannot be created or started
    UNSCHEDULABLE = "unschedulable"  # no node takes the pod


@dataclass(frozen=True)
class Trouble:
    kind: TroubleKind
    text: str
    """Pod, reason and the kubelet's or scheduler's message."""


@dataclass(frozen=True)
class Pod:
    name: str
    role: str
    phase: str = "Pending"
    ready: bool = False
    terminating: bool = False
    trouble: Trouble | None = None
    last_words: str = ""
    """Termination message of the last container that ended with an error."""
    ended: str = ""
    """When that was, RFC 3339."""


def read(manifest: Mapping[str, Any]) -> Pod:
    meta, status = manifest["metadata"], manifest.get("status", {})
    conditions = {c["type"]: c for c in status.get("conditions", ())}
    role = meta.get("labels", {}).get(ROLE_LABEL, "")
    words, ended = _last_words(status.get("containerStatuses", ()))
    return Pod(
        name=meta["name"],
        role=role,
        phase=status.get("phase", "Pending"),
        ready=conditions.get("Ready", {}).get("status") == "True",
        terminating="deletionTimestamp" in meta,
        trouble=next(_troubles(meta["name"], role, status), None),
        last_words=words or status.get("message", ""),
        ended=ended,
    )


def _troubles(pod: str, role: str, status: Mapping[str, Any]) -> Iterator[Trouble]:
    for container in status.get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting", {})
        reason = waiting.get("reason", "")
        text = f"pod {pod}: {reason}: {waiting.get('message', 'no message')}"
        if reason in PULL_REASONS:
            yield Trouble(TroubleKind.IMAGE, text)
        elif reason in START_REASONS:
            words, _ = _last_words([container])
            yield Trouble(TroubleKind.START, f"{text}; it said: {words}" if words else text)
    if status.get("phase") == "Failed" and role == Role.WORKER:
        # mpi-operator recreates a pod that is missing, not one that was evicted: its launch waits for ever.
        what = f"{status.get('reason', 'Failed')}: {status.get('message', 'no message')}"
        yield Trouble(TroubleKind.START, f"pod {pod} has ended: {what}; delete it, and it is created anew")
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            yield Trouble(TroubleKind.UNSCHEDULABLE, f"pod {pod}: {condition.get('message', 'unschedulable')}")


def _last_words(containers: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    found: list[tuple[str, str]] = []
    for container in containers:
        for state in (container.get("state", {}), container.get("lastState", {})):
            terminated = state.get("terminated")
            if terminated and terminated.get("exitCode"):
                code = f"{terminated.get('reason', 'Error')} (exit code {terminated['exitCode']})"
                text = terminated.get("message", "").strip()
                found.append((f"{code}: {text}" if text else code, terminated.get("finishedAt", "")))
    return max(found, key=lambda words_and_time: words_and_time[1], default=("", ""))


def worst_trouble(pods: Sequence[Pod]) -> Trouble | None:
    """The most hopeless trouble, of the first pod that has it."""
    order = list(TroubleKind)
    troubles = [p.trouble for p in pods if p.trouble is not None and not p.terminating]
    return min(troubles, key=lambda t: order.index(t.kind), default=None)


def launcher_words(pods: Sequence[Pod]) -> str:
    """What the launcher that ended last said."""
    launchers = [p for p in pods if p.role == Role.LAUNCHER and p.last_words]
    return max(launchers, key=lambda p: p.ended).last_words if launchers else ""


def ready_workers(pods: Sequence[Pod]) -> int:
    return sum(1 for p in pods if p.role == Role.WORKER and p.ready and not p.terminating)
