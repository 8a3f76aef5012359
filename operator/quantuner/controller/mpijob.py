"""The MPIJob of a tuning: pure and deterministic, see `docs/design.md` for the launcher pod's contract."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from quantuner.api import names
from quantuner.api.journal import History
from quantuner.api.spec import Tuning
from quantuner.controller.build import ANNOTATION_LAUNCHES, ANNOTATION_SPEC, ANNOTATION_TRIALS, labels, metadata
from quantuner.controller.objects import MPIJOB
from quantuner.controller.settings import Settings

TUNING_DIR = "/etc/quantuner/tuning"
CODE_DIR = "/etc/quantuner/task"
WORKSPACE_DIR = "/var/lib/quantuner"
OUTPUT_DIR = "/var/lib/quantuner-output"
HOSTFILE = "/etc/mpi/hostfile"
SSH_DIR = "/home/mpiuser/.ssh"
SSH_PORT = 2222
USER_ID = 1000  # mpiuser in the tuner image

# The launcher's supervisor survives the loss of pods; this covers its own loss (node, eviction, OOM).
LAUNCHER_BACKOFF_LIMIT = 6

# For the supervisor to end the ranks (10 s at most) and to bring the journal's last lines to the cluster.
LAUNCHER_GRACE_SECONDS = 30

OUR_ENV = {
    # Open MPI 5's PRRTE ignores the variables that mpi-operator sets: without these, all ranks start in the
    # launcher pod.
    "PRTE_MCA_prte_default_hostfile": HOSTFILE,
    "PRTE_MCA_plm_ssh_args": f"-p {SSH_PORT}",
}
SSHD = ["/usr/sbin/sshd", "-De", "-f", "/home/mpiuser/.sshd_config"]
_MPI_OPERATOR_ENV = {"K_MPI_JOB_ROLE"}
_MPI_OPERATOR_VOLUMES = {"mpi-job-config", "ssh-auth"}
_MPI_OPERATOR_PATHS = {posixpath.dirname(HOSTFILE), SSH_DIR}

POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "fsGroup": USER_ID,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}

_TUNING, _TASK, _WORKSPACE = "quantuner-tuning", "quantuner-task", "quantuner-workspace"
_OUTPUT = "quantuner-output"
_PASSED = (
    "nodeSelector",
    "affinity",
    "topologySpreadConstraints",
    "tolerations",
    "priorityClassName",
    "schedulerName",
    "runtimeClassName",
    "imagePullSecrets",
)
"""Of a template, what is a pod's as it stands."""
_OUR_PATHS = {TUNING_DIR, CODE_DIR, WORKSPACE_DIR, OUTPUT_DIR}


def build_mpijob(tuning: Tuning, image: str, spec_hash: str, told: History, settings: Settings) -> dict[str, Any]:
    """`told` is what the journal says before this launch: what it adds is the launch's progress."""
    annotations = {
        ANNOTATION_SPEC: spec_hash,
        ANNOTATION_TRIALS: str(len(told.trials)),
        ANNOTATION_LAUNCHES: str(len(told.launches)),
    }
    meta = metadata(tuning, names.mpijob_name(tuning.name), annotations)
    meta["labels"] = {**tuning.queue_labels, **meta["labels"]}
    return {
        "apiVersion": MPIJOB.api_version,
        "kind": MPIJOB.kind,
        "metadata": meta,
        "spec": {
            "slotsPerWorker": tuning.slots_per_worker,
            # Always, so that the launcher comes first in the hostfile and has rank 0; whether rank 0 evaluates
            # trials is ours to say, and the ranks read it from the resource.
            "runLauncherAsWorker": True,
            "launcherCreationPolicy": "WaitForWorkersReady",
            "sshAuthMountPath": SSH_DIR,
            "mpiImplementation": "OpenMPI",
            "runPolicy": {
                "cleanPodPolicy": "Running",
                "backoffLimit": LAUNCHER_BACKOFF_LIMIT,
                # Else a gang scheduler waits for the launcher as well, which waits for the workers.
                "schedulingPolicy": {"minAvailable": tuning.workers},
            },
            "mpiReplicaSpecs": {
                "Launcher": _launcher(tuning, image, settings),
                "Worker": _worker(tuning, image, settings),
            },
        },
    }


def launcher_command(tuning: Tuning) -> list[str]:
    command = ["/opt/venv/bin/python", "-m", "quantuner.distributed.launcher"]
    command += ["--tuning", f"{TUNING_DIR}/{names.TUNING_KEY}"]
    command += ["--code", CODE_DIR] if tuning.task.configmap else []
    command += ["--workspace", WORKSPACE_DIR]
    command += ["--output", OUTPUT_DIR] if tuning.output else []
    command += ["--journal", names.journal_configmap(tuning.name)]
    command += ["--result", names.result_configmap(tuning.name)]
    return [*command, "--hostfile", HOSTFILE]


def worker_command(tuning: Tuning) -> list[str]:
    """sshd, and the pod's fork server beside it, of which an image of an older Quantuner knows nothing."""
    if not may_fork(tuning):
        return SSHD
    server = ["/opt/venv/bin/python", "-m", "quantuner.distributed.worker", "--workspace", WORKSPACE_DIR]
    server += [word for variable in tuning.template.get("env", ()) for word in ("--variable", variable["name"])]
    return ["/bin/sh", "-c", f'"$@" & exec {" ".join(SSHD)}', "worker", *server]


def may_fork(tuning: Tuning) -> bool:
    """Whether ranks are forks of a server in every pod; they are where the user has not declined.

    Not on GPUs: what has begun CUDA cannot use it in its forks, and whatever is imported may ask for devices.
    """
    limits = tuning.template.get("resources", {}).get("limits", {})
    has_devices = any("/" in name for name in limits)  # as nvidia.com/gpu
    declined = any(variable["name"] == names.FORKS_VARIABLE for variable in tuning.template.get("env", ()))
    return tuning.quantization.device == "cpu" and not has_devices and not declined


def _launcher(tuning: Tuning, image: str, settings: Settings) -> dict[str, Any]:
    container = _container(tuning, image, settings)
    container |= {"name": "launcher", "command": launcher_command(tuning)}
    if may_fork(tuning):  # no argument, which an image of an older Quantuner would refuse
        container["env"].append({"name": names.FORKS_VARIABLE, "value": "1"})
    pod = _pod(tuning)
    if tuning.output:
        claim = {"claimName": tuning.output.claim}
        pod["volumes"].append({"name": _OUTPUT, "persistentVolumeClaim": claim})
        mount = {"name": _OUTPUT, "mountPath": OUTPUT_DIR, "subPath": tuning.output.path}
        container["volumeMounts"].append(mount)
    pod |= {
        "serviceAccountName": names.account_name(tuning.name),
        "automountServiceAccountToken": True,
        "terminationGracePeriodSeconds": LAUNCHER_GRACE_SECONDS,
        "containers": [container],
    }
    # Never and not OnFailure: each attempt is a pod of its own, on a node that lives, and a failed one keeps
    # its log and termination message; OnFailure's pod is deleted when the Job gives up. Both back off alike.
    return _replicas(tuning, 1, "Never", pod)


def _worker(tuning: Tuning, image: str, settings: Settings) -> dict[str, Any]:
    container = _container(tuning, image, settings) | {
        "name": "worker",
        "command": worker_command(tuning),
        "readinessProbe": {"tcpSocket": {"port": SSH_PORT}, "periodSeconds": 1},
    }
    # A worker has nothing to bring to safety: sshd, which its shell becomes, ends at the first SIGTERM and all its
    # ranks with it, so that the launcher sees a loss at once.
    pod = _pod(tuning) | {"automountServiceAccountToken": False, "containers": [container]}
    # mpi-operator recreates a worker pod that is missing, never one that failed: so it restarts in place.
    return _replicas(tuning, tuning.workers, "OnFailure", pod)


def _replicas(tuning: Tuning, count: int, restart: str, pod: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "replicas": count,
        "restartPolicy": restart,
        "template": {"metadata": _pod_metadata(tuning), "spec": dict(pod)},
    }


def _pod_metadata(tuning: Tuning) -> dict[str, Any]:
    template = tuning.template
    # Ours win, whatever a CRD of another version has let in: pods are found by them.
    meta: dict[str, Any] = {"labels": {**template.get("labels", {}), **labels(tuning)}}
    return meta | ({"annotations": dict(template["annotations"])} if "annotations" in template else {})


def _container(tuning: Tuning, image: str, settings: Settings) -> dict[str, Any]:
    template = tuning.template
    mounts = [
        {"name": _TUNING, "mountPath": TUNING_DIR, "readOnly": True},
        {"name": _WORKSPACE, "mountPath": WORKSPACE_DIR},
    ]
    if tuning.task.configmap:
        mounts.append({"name": _TASK, "mountPath": CODE_DIR, "readOnly": True})
    return {
        "image": image,
        "imagePullPolicy": template.get("imagePullPolicy", settings.tuner_image_pull_policy),
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "env": [*({"name": k, "value": v} for k, v in OUR_ENV.items()), *template.get("env", ())],
        "resources": dict(template.get("resources", {})),
        "volumeMounts": [*mounts, *template.get("volumeMounts", ())],
    }


def _pod(tuning: Tuning) -> dict[str, Any]:
    template = tuning.template
    volumes: list[Any] = [
        {"name": _TUNING, "configMap": {"name": names.tuning_configmap(tuning.name)}},
        {"name": _WORKSPACE, "emptyDir": {}},
    ]
    if tuning.task.configmap:
        volumes.append({"name": _TASK, "configMap": {"name": tuning.task.configmap}})
    passed = {key: template[key] for key in _PASSED if key in template}
    return {
        "securityContext": POD_SECURITY,
        "enableServiceLinks": False,
        "volumes": [*volumes, *template.get("volumes", ())],
        **passed,
    }


def clashes(tuning: Tuning) -> list[str]:
    """What the user's template sets although Quantuner or mpi-operator does; each with its remedy."""
    return [*_clashes(tuning.template)]


def _clashes(template: Mapping[str, Any]) -> Iterator[str]:
    for env in template.get("env", ()):
        if env["name"] in OUR_ENV or env["name"] in _MPI_OPERATOR_ENV:
            yield f"template.env sets {env['name']}, which Quantuner sets itself; remove it"
        if env["name"] == names.FORKS_VARIABLE and env.get("value") != "0":
            yield f'template.env sets {env["name"]}, which may be "0" alone (ranks import by themselves); or remove it'
    for volume in template.get("volumes", ()):
        if volume["name"].startswith("quantuner-") or volume["name"] in _MPI_OPERATOR_VOLUMES:
            yield f"template.volumes has {volume['name']}, a name that Quantuner uses itself; choose another"
    for mount in template.get("volumeMounts", ()):
        path = posixpath.normpath(mount["mountPath"])
        if path in _OUR_PATHS | _MPI_OPERATOR_PATHS:
            yield f"template.volumeMounts mounts at {path}, which Quantuner uses itself; choose another path"
