from __future__ import annotations

from typing import Any

import pytest

from quantuner.controller.pods import (
    Pod,
    Role,
    TroubleKind,
    launcher_words,
    read,
    ready_workers,
    worst_trouble,
)


def manifest(name: str = "digits-worker-0", **status: Any) -> dict[str, Any]:
    labels = {"training.kubeflow.org/job-role": "worker"}
    return {"metadata": {"name": name, "labels": labels}, "status": status}


def waiting(reason: str, message: str = "because", **more: Any) -> Pod:
    container = {"name": "worker", "state": {"waiting": {"reason": reason, "message": message}}, **more}
    return read(manifest(containerStatuses=[container]))


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("ErrImagePull", TroubleKind.IMAGE),
        ("ImagePullBackOff", TroubleKind.IMAGE),
        ("InvalidImageName", TroubleKind.IMAGE),
        ("ErrImageNeverPull", TroubleKind.IMAGE),
        ("CreateContainerConfigError", TroubleKind.START),
        ("CrashLoopBackOff", TroubleKind.START),
    ],
)
def test_a_waiting_container_is_trouble_in_the_kubelets_words(reason: str, kind: TroubleKind) -> None:
    trouble = waiting(reason).trouble
    assert trouble is not None
    assert trouble.kind is kind
    assert trouble.text == f"pod digits-worker-0: {reason}: because"


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_a_container_that_is_being_made_is_no_trouble(reason: str) -> None:
    assert waiting(reason).trouble is None


def test_a_crash_loop_says_what_the_container_said() -> None:
    last = {"terminated": {"exitCode": 255, "reason": "Error", "message": "sshd: no hostkeys\n"}}
    trouble = waiting("CrashLoopBackOff", lastState=last).trouble
    assert trouble is not None
    assert trouble.text.endswith("it said: Error (exit code 255): sshd: no hostkeys")


def test_an_unschedulable_pod_gives_the_schedulers_message() -> None:
    pod = read(
        manifest(
            conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]
        )
    )
    assert pod.trouble is not None
    assert (pod.trouble.kind, pod.trouble.text) == (TroubleKind.UNSCHEDULABLE, "pod digits-worker-0: 0/1 nodes")


def test_a_worker_that_was_evicted_is_trouble_and_a_launcher_is_not() -> None:
    evicted = manifest(phase="Failed", reason="Evicted", message="low on memory")
    trouble = read(evicted).trouble
    assert trouble is not None
    assert trouble.text.startswith("pod digits-worker-0 has ended: Evicted: low on memory; delete it")
    evicted["metadata"]["labels"] = {"training.kubeflow.org/job-role": "launcher"}
    assert read(evicted).trouble is None


def test_a_pod_without_a_status_is_pending() -> None:
    pod = read({"metadata": {"name": "p"}})
    assert (pod.phase, pod.ready, pod.role, pod.trouble) == ("Pending", False, "", None)


def test_the_worst_trouble_wins_and_terminating_pods_do_not_count() -> None:
    pods = [waiting("CrashLoopBackOff"), waiting("ErrImagePull")]
    worst = worst_trouble(pods)
    assert worst is not None
    assert worst.kind is TroubleKind.IMAGE
    gone = Pod("p", Role.WORKER, terminating=True, trouble=worst)
    assert worst_trouble([gone]) is None


def test_the_launcher_that_ended_last_has_the_last_word() -> None:
    pods = [
        Pod("b", Role.LAUNCHER, "Failed", last_words="first", ended="2026-11-23T12:00:00Z"),
        Pod("a", Role.LAUNCHER, "Failed", last_words="second", ended="2026-11-23T12:00:09Z"),
        Pod("w", Role.WORKER, "Failed", last_words="worker", ended="2026-11-23T13:00:00Z"),
    ]
    assert launcher_words(pods) == "second"
    assert launcher_words([]) == ""


def test_only_workers_that_are_ready_count() -> None:
    pods = [
        Pod("l", Role.LAUNCHER, "Running", ready=True),
        Pod("w0", Role.WORKER, "Running", ready=True),
        Pod("w1", Role.WORKER, "Running", ready=False),
        Pod("w2", Role.WORKER, "Running", ready=True, terminating=True),
    ]
    assert ready_workers(pods) == 1
