"""Taking parts of a running search away, without a word of warning."""

import signal

from tests.e2e.kube import Kube
from tests.e2e.release import OURS, Release

PYTHON = "/opt/venv/bin/python"
SERVER = "quantuner.distributed.forkserver"
KILL_THE_RANK = f"""
import os, pathlib, signal, time
def words(process):
    return pathlib.Path("/proc", str(process), "cmdline").read_bytes().split(b"\\0")
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        is_rank = parent > 0 and b"{SERVER}" in words(folder.name) and b"{SERVER}" in words(parent)
    except OSError:  # it has ended meanwhile
        continue
    if is_rank:
        print(time.time(), flush=True)
        os.kill(int(folder.name), signal.SIGKILL)
"""


def kill_rank(kube: Kube, pod: str) -> float:
    """Kills the Python of the one rank in a worker pod, a fork of its fork server; its sshd lives.

    Returns when, in seconds since 1970.
    """
    killed = kube.run("exec", pod, "-c", "worker", "--", PYTHON, "-c", KILL_THE_RANK).split()
    assert len(killed) == 1, f"{pod} has {len(killed)} forked ranks; this kills exactly one"
    return float(killed[0])


def kill_worker_pod(kube: Kube, pod: str) -> None:
    _kill_pod(kube, pod)


def kill_launcher_pod(kube: Kube, name: str) -> None:
    """The launcher that runs; those of earlier attempts stay for their logs."""
    selector = f"quantuner.dev/tuning={name},training.kubeflow.org/job-role=launcher"
    pods = kube.items("pods", "-l", selector, "--field-selector", "status.phase=Running")
    assert len(pods) == 1, f"{len(pods)} launchers of {name} run"
    _kill_pod(kube, pods[0]["metadata"]["name"])


def kill_operator_pod(release: Release) -> None:
    """Its Deployment makes another one."""
    (pod,) = release.kube.items("pods", "-l", OURS, "--field-selector", "status.phase=Running")
    _kill_pod(release.kube, pod["metadata"]["name"])


def kill_api_server(release: Release) -> None:
    """Kills its process; returns when another one is ready."""
    release.cluster.stop_process("apiserver", signal.SIGKILL)
    release.cluster.start_process("apiserver")


def _kill_pod(kube: Kube, pod: str) -> None:
    kube.run("delete", "pod", pod, "--force", "--grace-period=0")
