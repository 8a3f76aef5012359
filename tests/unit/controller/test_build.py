from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import yaml

from quantuner.api.journal import History
from quantuner.api.spec import Tuning, search_digest
from quantuner.api.validation import admit
from quantuner.controller import build
from quantuner.controller.mpijob import build_mpijob, clashes, launcher_command
from quantuner.controller.objects import identify
from quantuner.controller.settings import Settings
from quantuner.distributed.processes import TERMINATE_SECONDS
from tests.unit.controller.making import IMAGE, SETTINGS, UID, launched, resource, trial, tuning

CSafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CONFIGMAP_BYTES = 2**20 - 1000  # the API server's bound, with room for names
SOURCE = {"entrypoint": "task:make", "source": {"configMap": {"name": "code"}}}
FORKS = {"name": "QUANTUNER_FORKS", "value": "1"}
TOLD = History([launched()], [trial(i) for i in range(7)])
OUTPUT = {"persistentVolumeClaim": {"claimName": "models"}}
TEMPLATE = {
    "resources": {"limits": {"cpu": "2"}},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "k", "operator": "Exists"}],
    "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "t"}}}],
    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": True}],
    "imagePullPolicy": "Always",
    "imagePullSecrets": [{"name": "pull"}],
}
SHARED_CLUSTER = {
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"quantuner.dev/tuning": "digits"}},
        }
    ],
    "priorityClassName": "batch",
    "schedulerName": "volcano",
    "runtimeClassName": "gvisor",
}
"""What a cluster of many teams may want of a pod's spec."""


def mpijob(**spec: Any) -> dict[str, Any]:
    return build_mpijob(tuning(**spec), IMAGE, "hash", TOLD, SETTINGS)


def pods(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {role: r["template"]["spec"] for role, r in job["spec"]["mpiReplicaSpecs"].items()}


def mounts(pod: dict[str, Any]) -> dict[str, str]:
    return {m["mountPath"]: m["name"] for m in pod["containers"][0]["volumeMounts"]}


def everything() -> list[dict[str, Any]]:
    body = resource(task=SOURCE, output=OUTPUT, template=TEMPLATE)
    parsed = Tuning.from_body(body)
    return [*build.build_support(parsed, body, IMAGE), build_mpijob(parsed, IMAGE, "h", History(), SETTINGS)]


def test_every_object_is_owned_and_labelled() -> None:
    for manifest in everything():
        meta = manifest["metadata"]
        (owner,) = meta["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (UID, True, True)
        assert (meta["namespace"], meta["labels"]["quantuner.dev/tuning"]) == ("ns", "digits")
        assert meta["labels"]["app.kubernetes.io/managed-by"] == "quantuner"


def test_names_do_not_meet_those_of_mpi_operator() -> None:
    names = [m["metadata"]["name"] for m in everything()]
    assert names == ["digits-tuning", "digits-journal", "digits-result", *["digits-tuner"] * 3, "digits"]


def test_support_ids_name_what_is_built() -> None:
    body = resource()
    built = build.build_support(Tuning.from_body(body), body, IMAGE)
    assert [identify(m) for m in built] == build.support_ids("digits")


def test_building_is_deterministic_and_leaves_its_input_alone() -> None:
    body = resource(template=TEMPLATE)
    before = copy.deepcopy(body)
    assert everything() == everything()
    build_mpijob(Tuning.from_body(body), IMAGE, "h", History(), SETTINGS)
    assert body == before


def test_the_launcher_may_touch_its_journal_and_result_and_nothing_else() -> None:
    (rule,) = build.build_role(tuning())["rules"]
    assert rule == {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": ["digits-journal", "digits-result"],
        "verbs": ["get", "patch"],
    }


def test_journal_and_result_are_built_without_data_so_that_mending_cannot_erase_them() -> None:
    assert "data" not in build.build_journal_configmap(tuning())
    assert "data" not in build.build_result_configmap(tuning())


def test_ranks_read_the_same_search_that_was_applied() -> None:
    body = resource(suspend=True, task={"entrypoint": "task:make", "args": {"lr": 1e-05, "größe": [1, None]}})
    text = build.build_tuning_configmap(Tuning.from_body(body), body, IMAGE)["data"]["tuning.yaml"]
    read = admit(yaml.safe_load(text))
    assert search_digest(read) == search_digest(body)
    assert read["spec"]["task"] == body["spec"]["task"]
    assert read["spec"]["suspend"] is False


def written(args: dict[str, Any]) -> str:
    body = resource(task={"entrypoint": "task:make", "args": args})
    text: str = build.build_tuning_configmap(Tuning.from_body(body), body, IMAGE)["data"]["tuning.yaml"]
    assert yaml.load(text, CSafeLoader)["spec"]["task"]["args"] == args
    return text


def deep(value: Any) -> dict[str, Any]:
    """As far down as a resource goes."""
    for _ in range(45):
        value = {"a": value}
    return {"a": value}


@pytest.mark.parametrize(
    "args",
    [
        pytest.param(deep([[] for _ in range(9_900)]), id="many lists, each indented"),
        pytest.param(deep([1e16] * 9_900), id="many numbers"),
        pytest.param(deep("\na" * 80_000), id="a text of many lines, each indented"),
        pytest.param(deep("a " * 125_000), id="a text of many words, each of which may begin a line"),
        pytest.param(deep("\x7f" * 43_000), id="what YAML escapes"),
        pytest.param(deep("\ufeff" * 43_000), id="what YAML escapes with six letters"),
        pytest.param(deep("\U0010ffff" * 21_000), id="what YAML escapes with ten"),
        pytest.param(deep("'" * 250_000), id="quotation marks"),
        pytest.param(deep({"\n" * 120 + str(i): "a" for i in range(1_000)}), id="long keys"),
    ],
)
def test_the_largest_resources_fit_into_their_configmap(args: dict[str, Any]) -> None:
    assert len(written(args).encode()) < CONFIGMAP_BYTES


def test_the_dense_form_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    args = {"lr": 1e-05, "größe": [1, None, True, -1.5, "1e3", "no", "", " a\n\tb ", "\x7f🦀"], "k" * 300: {}, "e": []}
    plain = written(args)
    monkeypatch.setattr(build, "TEXT_LIMIT_BYTES", 0)
    dense = written(args)
    assert dense.startswith('{"apiVersion"')
    assert yaml.safe_load(dense) == yaml.safe_load(plain)


@pytest.mark.parametrize(
    ("change", "replaces"),
    [
        ({"workers": 3}, True),
        ({"tuningCriterion": {"maxTrials": 7}}, True),
        ({"tuningCriterion": {"timeoutSeconds": 60}}, True),
        ({"slotsPerWorker": 2}, True),
        ({"runLauncherAsWorker": True}, True),
        ({"suspend": True}, False),
    ],
)
def test_what_a_launch_is_made_from_shows_in_its_hash(change: dict[str, Any], replaces: bool) -> None:
    assert (build.spec_hash(resource(**change)) != build.spec_hash(resource())) is replaces


def test_fields_about_slots_have_no_defaults_that_would_change_the_hash_of_older_resources() -> None:
    """Else an upgrade of the operator would start every search of the cluster anew."""
    assert not {"slotsPerWorker", "runLauncherAsWorker", "threadsPerRank"} & resource()["spec"].keys()


def test_the_hash_does_not_change_with_the_generation() -> None:
    body = resource()
    changed = {**body, "metadata": {**body["metadata"], "generation": 9, "resourceVersion": "8"}}
    assert build.spec_hash(changed) == build.spec_hash(body)


def test_mpijob_runs_rank_0_in_the_launcher_and_waits_for_workers() -> None:
    spec = mpijob(workers=4)["spec"]
    assert (spec["runLauncherAsWorker"], spec["slotsPerWorker"]) == (True, 1)
    assert spec["launcherCreationPolicy"] == "WaitForWorkersReady"
    assert spec["sshAuthMountPath"] == "/home/mpiuser/.ssh"
    assert spec["runPolicy"]["cleanPodPolicy"] == "Running"
    assert spec["runPolicy"]["schedulingPolicy"]["minAvailable"] == 4
    assert [(r["replicas"], r["restartPolicy"]) for r in spec["mpiReplicaSpecs"].values()] == [
        (1, "Never"),
        (4, "OnFailure"),
    ]


@pytest.mark.parametrize("launcher_works", [False, True])
def test_mpi_operator_gives_each_worker_its_slots_and_the_launcher_a_place(launcher_works: bool) -> None:
    """The launcher is in the hostfile in any case, since rank 0 runs there."""
    job = mpijob(workers=3, slotsPerWorker=4, runLauncherAsWorker=launcher_works, template=TEMPLATE)
    assert (job["spec"]["runLauncherAsWorker"], job["spec"]["slotsPerWorker"]) == (True, 4)
    resources = [pod["containers"][0]["resources"] for pod in pods(job).values()]
    assert resources == [TEMPLATE["resources"]] * 2


def test_mpijob_remembers_what_it_was_made_from() -> None:
    annotations = mpijob()["metadata"]["annotations"]
    assert annotations == {
        "quantuner.dev/spec-hash": "hash",
        "quantuner.dev/trials-at-launch": "7",
        "quantuner.dev/launches-before": "1",
    }


def test_labels_for_kueue_go_with_the_mpijob_and_no_others() -> None:
    body = resource()
    body["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpu", "team": "a", "quantuner.dev/tuning": "other"}
    job = build_mpijob(Tuning.from_body(body), IMAGE, "h", History(), SETTINGS)
    assert job["metadata"]["labels"] == {
        "kueue.x-k8s.io/queue-name": "gpu",
        "app.kubernetes.io/managed-by": "quantuner",
        "quantuner.dev/tuning": "digits",
    }


@pytest.mark.parametrize("role", ["Launcher", "Worker"])
def test_pods_fit_the_restricted_pod_security_standard(role: str) -> None:
    pod = pods(mpijob())[role]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "fsGroup": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }


def test_only_the_launcher_speaks_to_the_api_server() -> None:
    found = pods(mpijob())
    assert found["Launcher"]["serviceAccountName"] == "digits-tuner"
    assert found["Launcher"]["automountServiceAccountToken"] is True
    assert "serviceAccountName" not in found["Worker"]
    assert found["Worker"]["automountServiceAccountToken"] is False


def test_the_launcher_has_time_to_end_its_ranks_and_bring_the_journal_to_the_cluster() -> None:
    assert pods(mpijob())["Launcher"]["terminationGracePeriodSeconds"] >= 2 * TERMINATE_SECONDS


def test_workers_run_sshd_and_are_ready_when_it_listens() -> None:
    (container,) = pods(mpijob())["Worker"]["containers"]
    assert " ".join(container["command"]) == (
        '/bin/sh -c "$@" & exec /usr/sbin/sshd -De -f /home/mpiuser/.sshd_config worker '
        "/opt/venv/bin/python -m quantuner.distributed.worker --workspace /var/lib/quantuner"
    )
    assert container["readinessProbe"] == {"tcpSocket": {"port": 2222}, "periodSeconds": 1}


def test_a_workers_fork_server_is_told_which_variables_every_rank_has() -> None:
    env = [{"name": "OMP_NUM_THREADS", "value": "2"}, {"name": "HF_HOME", "value": "/models"}]
    (container,) = pods(mpijob(template={"env": env}))["Worker"]["containers"]
    assert container["command"][-4:] == ["--variable", "OMP_NUM_THREADS", "--variable", "HF_HOME"]


@pytest.mark.parametrize(
    "spec",
    [
        {"quantization": {"device": "cuda"}},
        {"template": {"resources": {"limits": {"nvidia.com/gpu": 1}}}},
        {"template": {"resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}}},
        {"template": {"env": [{"name": "QUANTUNER_FORKS", "value": "0"}]}},
    ],
)
def test_ranks_with_gpus_are_no_forks_nor_where_the_user_declines(spec: dict[str, Any]) -> None:
    """Forks could not use CUDA."""
    found = {role: pod["containers"][0] for role, pod in pods(mpijob(**spec)).items()}
    assert found["Worker"]["command"] == ["/usr/sbin/sshd", "-De", "-f", "/home/mpiuser/.sshd_config"]
    assert FORKS not in found["Launcher"]["env"]


def test_ranks_are_forks_else() -> None:
    found = pods(mpijob(template={"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}))
    assert FORKS in found["Launcher"]["containers"][0]["env"]
    assert FORKS not in found["Worker"]["containers"][0]["env"]


def test_launcher_command_is_the_contract_of_the_design() -> None:
    assert " ".join(launcher_command(tuning(task=SOURCE, output=OUTPUT))) == (
        "/opt/venv/bin/python -m quantuner.distributed.launcher --tuning /etc/quantuner/tuning/tuning.yaml "
        "--code /etc/quantuner/task --workspace /var/lib/quantuner --output /var/lib/quantuner-output "
        "--journal digits-journal --result digits-result --hostfile /etc/mpi/hostfile"
    )


def test_launcher_command_leaves_out_what_is_not_set() -> None:
    command = launcher_command(tuning())
    assert "--code" not in command
    assert "--output" not in command


def test_code_is_mounted_on_all_ranks_and_the_output_on_the_launcher() -> None:
    found = pods(mpijob(task=SOURCE, output={**OUTPUT, "path": "a/b"}))
    common = {"/etc/quantuner/tuning", "/etc/quantuner/task", "/var/lib/quantuner"}
    assert set(mounts(found["Worker"])) == common
    assert set(mounts(found["Launcher"])) == common | {"/var/lib/quantuner-output"}
    assert found["Launcher"]["containers"][0]["volumeMounts"][-1]["subPath"] == "a/b"


@pytest.mark.parametrize("role", ["Launcher", "Worker"])
def test_every_mount_has_its_volume(role: str) -> None:
    pod = pods(mpijob(task=SOURCE, output=OUTPUT, template=TEMPLATE))[role]
    assert set(mounts(pod).values()) == {v["name"] for v in pod["volumes"]}


@pytest.mark.parametrize("role", ["Launcher", "Worker"])
def test_the_users_template_reaches_the_pods(role: str) -> None:
    pod = pods(mpijob(template=TEMPLATE))[role]
    (container,) = pod["containers"]
    assert pod["nodeSelector"] == {"disk": "ssd"}
    assert pod["tolerations"] == TEMPLATE["tolerations"]
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    assert container["resources"] == {"limits": {"cpu": "2"}}
    assert container["imagePullPolicy"] == "Always"
    assert {e["name"] for e in container["env"]} >= {"TOKEN", "PRTE_MCA_prte_default_hostfile"}
    assert mounts(pod)["/data"] == "data"


@pytest.mark.parametrize("role", ["Launcher", "Worker"])
def test_what_shared_clusters_want_reaches_the_pods(role: str) -> None:
    template = {**SHARED_CLUSTER, "labels": {"team": "a"}, "annotations": {"sidecar.istio.io/inject": "false"}}
    made = mpijob(template=template)["spec"]["mpiReplicaSpecs"][role]["template"]
    assert SHARED_CLUSTER.items() <= made["spec"].items()
    assert made["metadata"] == {
        "labels": {
            "team": "a",
            "app.kubernetes.io/managed-by": "quantuner",
            "quantuner.dev/tuning": "digits",
        },
        "annotations": {"sidecar.istio.io/inject": "false"},
    }


def test_without_them_pods_have_our_labels_alone() -> None:
    for role, replicas in mpijob()["spec"]["mpiReplicaSpecs"].items():
        assert set(replicas["template"]["metadata"]) == {"labels"}, role
        assert not SHARED_CLUSTER.keys() & replicas["template"]["spec"].keys(), role


def test_our_labels_win() -> None:
    """The CRD refuses these; a resource may have been stored under another version's."""
    made = dataclasses.replace(tuning(), template={"labels": {"quantuner.dev/tuning": "other", "team": "a"}})
    job = build_mpijob(made, IMAGE, "h", History(), SETTINGS)
    for replicas in job["spec"]["mpiReplicaSpecs"].values():
        assert replicas["template"]["metadata"]["labels"]["quantuner.dev/tuning"] == "digits"


def test_the_pull_policy_of_the_operator_is_the_default() -> None:
    settings = Settings(tuner_image=IMAGE, tuner_image_pull_policy="Never")
    for pod in pods(build_mpijob(tuning(), IMAGE, "h", History(), settings)).values():
        assert pod["containers"][0]["imagePullPolicy"] == "Never"


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ({"env": [{"name": "PRTE_MCA_prte_default_hostfile"}]}, "PRTE_MCA_prte_default_hostfile"),
        ({"env": [{"name": "K_MPI_JOB_ROLE", "value": "x"}]}, "K_MPI_JOB_ROLE"),
        ({"volumes": [{"name": "ssh-auth"}]}, "ssh-auth"),
        ({"volumes": [{"name": "quantuner-task"}]}, "quantuner-task"),
        ({"volumes": [{"name": "v"}], "volumeMounts": [{"name": "v", "mountPath": "/etc/mpi/"}]}, "/etc/mpi"),
    ],
)
def test_clashes_with_what_we_set_are_named(template: dict[str, Any], names: str) -> None:
    (clash,) = clashes(tuning(template=template))
    assert names in clash


def test_an_ordinary_template_clashes_with_nothing() -> None:
    assert clashes(tuning(template=TEMPLATE)) == []


@pytest.mark.parametrize(("value", "found"), [("0", 0), ("1", 1), ("", 1)])
def test_forks_may_be_declined_and_not_asked_for(value: str, found: int) -> None:
    assert len(clashes(tuning(template={"env": [FORKS | {"value": value}]}))) == found
