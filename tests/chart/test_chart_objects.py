"""What is installed, as a cluster and its rules see it."""

import re

import pytest

import quantuner
from tests.chart.dashboard import DASHBOARD
from tests.chart.helm import (
    NAME,
    NAMESPACE,
    RELEASE,
    TUNER,
    Helm,
    Object,
    RefusedError,
    Rendered,
    merged,
    nested,
)

EVERYTHING = merged(
    nested("metrics.podMonitor.enabled", True),
    nested("metrics.prometheusRule.enabled", True),
    nested("networkPolicy.enabled", True),
)
VALUES = {"defaults": {}, "everything": EVERYTHING, "some namespaces": {"watchNamespaces": ["a", "b"]}}
# Of the Pod Security Standard.
ALLOWED_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir"),
    *("ephemeral", "persistentVolumeClaim", "projected", "secret"),
}
CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
LONGEST_RELEASE = "r" * 53  # Helm's own limit
RELEASES = (LONGEST_RELEASE, "quantuner", "my-quantuner-2", "team.quantuner", f"{'r' * 48}--x", f"{'r' * 49}.x")
SCRAPED_THROUGH = [("metrics.podMonitor", "PodMonitor"), ("metrics.serviceMonitor", "ServiceMonitor")]


@pytest.fixture(scope="session")
def everything(helm: Helm) -> Rendered:
    return helm.render(EVERYTHING)


@pytest.fixture(scope="session")
def pod(defaults: Rendered) -> Object:
    deployment = defaults.one("Deployment")
    assert deployment is not None
    spec: Object = deployment["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_lint_is_clean(helm: Helm, values: Object) -> None:
    assert "0 chart(s) failed" in helm.lint(values)


def test_kinds_by_default(defaults: Rendered) -> None:
    assert sorted(o["kind"] for o in defaults) == [
        "ClusterRole",
        "ClusterRole",
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "CustomResourceDefinition",
        "Deployment",
        "Service",
        "ServiceAccount",
    ]


def test_objects_are_labelled_and_placed(everything: Rendered) -> None:
    for o in everything:
        name = f"{o['kind']} {o['metadata']['name']}"
        assert o["apiVersion"], name
        assert o["metadata"]["labels"]["app.kubernetes.io/instance"] == RELEASE, name
        assert o["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm", name
        expected = None if o["kind"] in CLUSTER_SCOPED else NAMESPACE
        assert o["metadata"].get("namespace") == expected, name


def test_no_object_twice(everything: Rendered) -> None:
    keys = [(o["kind"], o["metadata"]["name"]) for o in everything]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("release", RELEASES)
def test_names_are_dns_labels_for_every_release(helm: Helm, release: str) -> None:
    for o in helm.render(EVERYTHING, release):
        if o["kind"] != "CustomResourceDefinition":
            assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", o["metadata"]["name"])
        assert all(len(value) <= 63 for value in o["metadata"]["labels"].values())


def test_release_with_a_digit_first_is_refused_unless_its_objects_have_another_name(helm: Helm) -> None:
    with pytest.raises(
        RefusedError, match=r"release 2nd: a Service's name must not begin with a digit; .*fullnameOverride"
    ):
        helm.render(release="2nd")
    service = helm.render({"fullnameOverride": "second"}, "2nd").one("Service")
    assert service is not None
    assert service["metadata"]["name"] == "second-metrics"


@pytest.mark.parametrize("word", ["true", "null", "yes", "e1", "123", "1e3"])
def test_names_that_yaml_takes_for_something_else_stay_text(helm: Helm, word: str) -> None:
    """Each is a fine name of a namespace, an account or a release."""
    letters = word if word[0].isalpha() else "quantuner"
    values = merged(
        EVERYTHING,
        {"fullnameOverride": letters, "nameOverride": word, "priorityClassName": word, "watchNamespaces": [word]},
        nested("serviceAccount.name", word),
        nested("dashboard.namespace", word),
    )
    rendered = helm.render(values, word)
    for o in rendered:
        metadata = o["metadata"]
        texts = [metadata["name"], metadata.get("namespace", ""), *metadata["labels"].values()]
        texts += [text for subject in o.get("subjects", []) for text in subject.values()]
        assert all(isinstance(text, str) for text in texts), o
    deployment = rendered.one("Deployment")
    assert deployment is not None
    assert deployment["spec"]["selector"]["matchLabels"] == {
        "app.kubernetes.io/name": word,
        "app.kubernetes.io/instance": word,
    }
    pod = deployment["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == pod["priorityClassName"] == word


def test_release_that_is_called_like_the_chart_does_not_repeat_it(helm: Helm) -> None:
    deployment = helm.render(release="quantuner").one("Deployment")
    assert deployment is not None
    assert deployment["metadata"]["name"] == "quantuner"


def test_pod_meets_the_restricted_standard(pod: Object) -> None:
    """Every control of the Pod Security Standard `restricted`, and a read-only root beyond it."""
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert "initContainers" not in pod
    for volume in pod["volumes"]:
        assert volume.keys() - {"name"} <= ALLOWED_VOLUMES
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPort" in port for port in container["ports"])


def test_read_only_root_has_a_writable_tmp(pod: Object) -> None:
    (mount,) = pod["containers"][0]["volumeMounts"]
    assert mount == {"name": "tmp", "mountPath": "/tmp"}
    (volume,) = pod["volumes"]
    assert volume["name"] == "tmp"
    assert "emptyDir" in volume


def test_never_two_operators(defaults: Rendered) -> None:
    deployment = defaults.one("Deployment")
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_probes_ask_the_health_port(pod: Object) -> None:
    (operator,) = pod["containers"]
    assert {"name": "health", "containerPort": 8081} in operator["ports"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert operator[probe]["httpGet"] == {"path": "/healthz", "port": "health"}


def test_service_and_policy_select_the_pod(everything: Rendered) -> None:
    deployment, service = everything.one("Deployment"), everything.one("Service")
    policy, monitor = everything.one("NetworkPolicy"), everything.one("PodMonitor")
    assert deployment
    assert service
    assert policy
    assert monitor
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert service["spec"]["selector"] == selector
    assert policy["spec"]["podSelector"]["matchLabels"] == selector
    assert monitor["spec"]["selector"]["matchLabels"] == selector
    assert service["spec"]["ports"] == [{"name": "metrics", "port": 8080, "targetPort": "metrics"}]


@pytest.mark.parametrize(("value", "kind"), SCRAPED_THROUGH)
def test_scraped_series_keep_the_namespace_of_their_search(helm: Helm, value: str, kind: str) -> None:
    monitor = helm.render(nested(f"{value}.enabled", True)).one(kind)
    assert monitor is not None
    (endpoint,) = monitor["spec"].get("podMetricsEndpoints") or monitor["spec"]["endpoints"]
    assert endpoint["honorLabels"] is True
    assert endpoint["port"] == "metrics"


def test_service_monitor_selects_the_service(helm: Helm) -> None:
    rendered = helm.render(nested("metrics.serviceMonitor.enabled", True))
    service, monitor = rendered.one("Service"), rendered.one("ServiceMonitor")
    assert service
    assert monitor
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()


def test_dashboard_is_the_file(defaults: Rendered) -> None:
    config = defaults.one("ConfigMap")
    assert config is not None
    assert config["data"] == {"quantuner.json": DASHBOARD.read_text().strip()}
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_notes_lead_on(helm: Helm) -> None:
    notes = helm.notes({"metrics": {"port": 9090}})
    for command in (
        f"kubectl --namespace {NAMESPACE} rollout status deployment/{NAME}",
        "kubectl get mpijobs.v2beta1.kubeflow.org --all-namespaces",
        f"runs in {TUNER}:{quantuner.__version__}, which must hold",
        "kubectl apply --kustomize examples/digits/",
        "kubectl get quantizationtunings --watch",
        f"port-forward service/{NAME}-metrics 9090",
        "kubectl delete customresourcedefinition quantizationtunings.quantuner.dev",
    ):
        assert command in notes


def test_notes_name_a_namespace_that_is_served(helm: Helm) -> None:
    notes = helm.notes({"watchNamespaces": ["team-a", "team-b"]})
    assert "serves the namespaces team-a, team-b." in notes
    assert "kubectl --namespace team-a apply" in notes


@pytest.mark.parametrize(
    ("crds", "says"),
    [
        ({"enabled": False}, "apply it yourself"),
        ({"keep": False}, "also deletes every QuantizationTuning"),
        ({}, "keeps the CustomResourceDefinition"),
    ],
)
def test_notes_say_what_becomes_of_the_crd(helm: Helm, crds: Object, says: str) -> None:
    assert says in helm.notes({"crds": crds})
