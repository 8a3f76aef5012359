"""Each value: set and unset in pairs, described, documented, and refused when it is wrong.

`CASES` names every value at least once; `test_no_value_is_left_out` holds that. What is not here: the
rights (test_chart_rbac.py), the CRD (test_chart_crd.py) and the alerts (test_chart_alerts.py).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pytest

from quantuner.controller import settings
from tests.chart import values_table
from tests.chart.helm import CHART, NAME, NAMESPACE, Helm, Object, RefusedError, Rendered, merged, nested

ABSENT = "<absent>"
DIGEST = f"sha256:{'0123456789abcdef' * 4}"
PEERS = [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}]

Look = Callable[[Rendered], Any]


def at(kind: str, path: str, name: str | None = None) -> Look:
    """What stands at a dotted path of the one object of this kind; numbers index lists."""

    def look(rendered: Rendered) -> Any:
        found: Any = rendered.one(kind, name)
        try:
            return reduce(lambda o, key: o[int(key)] if isinstance(o, list) else o[key], path.split("."), found)
        except (KeyError, IndexError, TypeError):
            return ABSENT

    return look


def pod(path: str) -> Look:
    return at("Deployment", f"spec.template.{path}")


def container(path: str) -> Look:
    return pod(f"spec.containers.0.{path}")


def setting(field: str) -> Look:
    """What the operator itself makes of the arguments."""
    return lambda rendered: getattr(settings.parse(rendered.operator["args"], {}), field)


def present(kind: str, name: str | None = None) -> Look:
    return lambda rendered: rendered.one(kind, name) is not None


@dataclass(frozen=True)
class Case:
    """A value and what it changes: `look` finds `then` when it is set and `otherwise` when it is not."""

    value: str
    to: Any
    look: Look
    then: Any
    otherwise: Any = ABSENT
    also: Object | None = None
    """Values that both renderings have, since the one in question needs them."""


POD_MONITOR = nested("metrics.podMonitor.enabled", True)
SERVICE_MONITOR = nested("metrics.serviceMonitor.enabled", True)
RULE = nested("metrics.prometheusRule.enabled", True)
POLICY = nested("networkPolicy.enabled", True)
TOLERATION = {"key": "dedicated", "operator": "Equal", "value": "infra", "effect": "NoSchedule"}
AFFINITY = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}
ENV = [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]

CASES = [
    Case("nameOverride", "qt", at("Deployment", "metadata.name"), "tuner-release-qt", NAME),
    Case("fullnameOverride", "whole", at("Deployment", "metadata.name"), "whole", NAME),
    Case("watchNamespaces", ["team-a", "team-b"], setting("namespaces"), ("team-a", "team-b"), ()),
    Case("watchNamespaces", ["team-a"], present("ClusterRole", NAME), False, True),
    Case("image.repository", "mirror:5000/op", container("image"), "mirror:5000/op:0.1.0", "quantuner/operator:0.1.0"),
    Case("image.tag", "0.2.0", container("image"), "quantuner/operator:0.2.0", "quantuner/operator:0.1.0"),
    Case("image.digest", DIGEST, container("image"), f"quantuner/operator@{DIGEST}", "quantuner/operator:0.1.0"),
    Case("image.pullPolicy", "Never", container("imagePullPolicy"), "Never", "IfNotPresent"),
    Case("imagePullSecrets", [{"name": "key"}], pod("spec.imagePullSecrets"), [{"name": "key"}]),
    Case("tuner.image.repository", "mirror/t", setting("tuner_image"), "mirror/t:0.1.0", "quantuner/tuner:0.1.0"),
    Case("tuner.image.tag", "cpu", setting("tuner_image"), "quantuner/tuner:cpu", "quantuner/tuner:0.1.0"),
    Case("tuner.image.digest", DIGEST, setting("tuner_image"), f"quantuner/tuner@{DIGEST}", "quantuner/tuner:0.1.0"),
    Case("tuner.image.pullPolicy", "Always", setting("tuner_image_pull_policy"), "Always", "IfNotPresent"),
    Case("log.level", "debug", setting("log_level"), "debug", "info"),
    Case("log.format", "json", setting("log_format"), "json", "plain"),
    Case("health.port", 9081, setting("health_port"), 9081, 8081),
    Case("health.port", 9081, container("ports.1.containerPort"), 9081, 8081),
    Case("serviceAccount.create", False, present("ServiceAccount"), False, True, nested("serviceAccount.name", "sa")),
    Case("serviceAccount.name", "sa", at("ServiceAccount", "metadata.name"), "sa", NAME),
    Case("serviceAccount.name", "sa", pod("spec.serviceAccountName"), "sa", NAME),
    Case("serviceAccount.name", "sa", at("ClusterRoleBinding", "subjects.0.name"), "sa", NAME),
    Case("serviceAccount.annotations", {"a": "b"}, at("ServiceAccount", "metadata.annotations"), {"a": "b"}),
    Case("rbac.create", False, present("ClusterRole", NAME), False, True),
    Case("rbac.create", False, present("ClusterRoleBinding"), False, True),
    Case("rbac.userRoles", False, present("ClusterRole", f"{NAME}-edit"), False, True),
    Case("rbac.userRoles", False, present("ClusterRole", f"{NAME}-view"), False, True),
    Case("crds.enabled", False, present("CustomResourceDefinition"), False, True),
    Case("crds.keep", False, at("CustomResourceDefinition", "metadata.annotations"), ABSENT, {"helm.sh/resource-policy": "keep"}),
    Case("metrics.port", 9090, setting("metrics_port"), 9090, 8080),
    Case("metrics.port", 9090, container("ports.0.containerPort"), 9090, 8080),
    Case("metrics.port", 9090, at("Service", "spec.ports.0.port"), 9090, 8080),
    Case("metrics.service.enabled", False, present("Service"), False, True),
    Case("metrics.service.annotations", {"a": "b"}, at("Service", "metadata.annotations"), {"a": "b"}),
    Case("metrics.podMonitor.enabled", True, present("PodMonitor"), True, False),
    Case("metrics.podMonitor.interval", "5s", at("PodMonitor", "spec.podMetricsEndpoints.0.interval"), "5s", ABSENT, POD_MONITOR),
    Case("metrics.podMonitor.labels", {"release": "p"}, at("PodMonitor", "metadata.labels.release"), "p", ABSENT, POD_MONITOR),
    Case("metrics.serviceMonitor.enabled", True, present("ServiceMonitor"), True, False),
    Case("metrics.serviceMonitor.interval", "1m30s", at("ServiceMonitor", "spec.endpoints.0.interval"), "1m30s", ABSENT, SERVICE_MONITOR),
    Case("metrics.serviceMonitor.labels", {"release": "p"}, at("ServiceMonitor", "metadata.labels.release"), "p", ABSENT, SERVICE_MONITOR),
    Case("metrics.prometheusRule.enabled", True, present("PrometheusRule"), True, False),
    Case("metrics.prometheusRule.labels", {"release": "p"}, at("PrometheusRule", "metadata.labels.release"), "p", ABSENT, RULE),
    Case("metrics.prometheusRule.startWithin", "2h", at("PrometheusRule", "spec.groups.1.rules.1.for"), "2h", "30m", RULE),
    Case("metrics.prometheusRule.stalledAfter", "2d", lambda r: "offset 2d" in at("PrometheusRule", "spec.groups.1.rules.2.expr")(r), True, False, RULE),
    Case("dashboard.enabled", False, present("ConfigMap"), False, True),
    Case("dashboard.namespace", "monitoring", at("ConfigMap", "metadata.namespace"), "monitoring", NAMESPACE),
    Case("dashboard.labels", {"team": "ml"}, at("ConfigMap", "metadata.labels.team"), "ml"),
    Case("dashboard.labels", {"grafana_dashboard": None}, at("ConfigMap", "metadata.labels.grafana_dashboard"), ABSENT, "1"),
    Case("dashboard.annotations", {"grafana_folder": "Q"}, at("ConfigMap", "metadata.annotations"), {"grafana_folder": "Q"}),
    Case("networkPolicy.enabled", True, present("NetworkPolicy"), True, False),
    Case("networkPolicy.metricsFrom", PEERS, at("NetworkPolicy", "spec.ingress.0.from"), PEERS, ABSENT, POLICY),
    Case("networkPolicy.metricsFrom", PEERS, at("NetworkPolicy", "spec.ingress.1"), {"ports": [{"port": "health"}]}, {"ports": [{"port": "health"}]}, POLICY),
    Case("resources.requests", {"cpu": "2"}, container("resources.requests.cpu"), "2", "50m"),
    Case("resources.limits", {"memory": "1Gi"}, container("resources.limits.memory"), "1Gi", "512Mi"),
    Case("nodeSelector", {"disk": "ssd"}, pod("spec.nodeSelector"), {"disk": "ssd"}),
    Case("tolerations", [TOLERATION], pod("spec.tolerations"), [TOLERATION]),
    Case("affinity", AFFINITY, pod("spec.affinity"), AFFINITY),
    Case("priorityClassName", "high", pod("spec.priorityClassName"), "high"),
    Case("podAnnotations", {"note": "x"}, pod("metadata.annotations.note"), "x"),
    Case("podLabels", {"team": "ml"}, pod("metadata.labels.team"), "ml"),
    Case("podLabels", {"team": "ml"}, at("Deployment", "spec.selector.matchLabels.team"), ABSENT),
    Case("extraEnv", ENV, container("env"), ENV),
    Case("terminationGracePeriodSeconds", 0, pod("spec.terminationGracePeriodSeconds"), 0, 30),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.value}={case.to}")
def test_value_set_and_unset(helm: Helm, defaults: Rendered, case: Case) -> None:
    also = case.also or {}
    assert case.look(helm.render(also) if also else defaults) == case.otherwise
    assert case.look(helm.render(merged(also, nested(case.value, case.to)))) == case.then


def test_no_value_is_left_out() -> None:
    assert {case.value for case in CASES} == {value.path for value in values_table.leaves()}


@dataclass(frozen=True)
class Wrong:
    """Values that are refused, and what the message says."""

    values: Object
    says: str


WRONG = {
    "misspelt": Wrong({"watchNamespace": ["a"]}, r"'watchNamespace' not allowed"),
    "misspelt inside": Wrong(nested("metrics.podmonitor.enabled", True), r"'/metrics'.*'podmonitor' not allowed"),
    "pattern for a namespace": Wrong({"watchNamespaces": ["team-*"]}, r"'/watchNamespaces/0'"),
    "namespace twice": Wrong({"watchNamespaces": ["a", "a"]}, r"'/watchNamespaces'"),
    "text for a list": Wrong({"watchNamespaces": "team-a"}, r"'/watchNamespaces'.*want array"),
    "tag as a number": Wrong(nested("image.tag", 1.1), r"'/image/tag'.*want string"),
    "tag with a space": Wrong(nested("image.tag", "a b"), r"'/image/tag'"),
    "digest in the repository": Wrong(nested("image.repository", f"a@{DIGEST}"), r"'/image/repository'"),
    "digest cut short": Wrong(nested("tuner.image.digest", "sha256:12"), r"'/tuner/image/digest'"),
    "pull policy": Wrong(nested("image.pullPolicy", "Sometimes"), r"'/image/pullPolicy'.*'IfNotPresent'"),
    "pull secret as text": Wrong({"imagePullSecrets": ["key"]}, r"'/imagePullSecrets/0'.*want object"),
    "log level": Wrong(nested("log.level", "loud"), r"'/log/level'.*'debug'"),
    "log format": Wrong(nested("log.format", "xml"), r"'/log/format'.*'json'"),
    "port below 1024": Wrong(nested("metrics.port", 80), r"'/metrics/port'.*got 80, want 1,024"),
    "port as text": Wrong(nested("health.port", "8081"), r"'/health/port'.*want integer"),
    "interval without unit": Wrong(nested("metrics.podMonitor.interval", "30"), r"'/metrics/podMonitor/interval'"),
    "alert without duration": Wrong(nested("metrics.prometheusRule.stalledAfter", ""), r"'/metrics/prometheusRule/"),
    "label that is no text": Wrong(nested("dashboard.labels", {"a": 1}), r"'/dashboard/labels/a'.*want string"),
    "switch as text": Wrong(nested("crds.enabled", "false"), r"'/crds/enabled'.*want boolean"),
    "unknown resource block": Wrong(nested("resources.limit", {}), r"'/resources'.*'limit' not allowed"),
    "toleration": Wrong({"tolerations": [{"effect": "Never"}]}, r"'/tolerations/0/effect'"),
    "variable without name": Wrong({"extraEnv": [{"value": "x"}]}, r"'/extraEnv/0'.*'name'"),
    "grace": Wrong({"terminationGracePeriodSeconds": -1}, r"'/terminationGracePeriodSeconds'"),
    "name too long": Wrong({"fullnameOverride": "a" * 51}, r"'/fullnameOverride'"),
    "one port twice": Wrong(nested("health.port", 8080), r"both 8080.*change one"),
    "two monitors": Wrong(merged(POD_MONITOR, SERVICE_MONITOR), r"count twice: enable one"),
    "monitor without service": Wrong(
        merged(SERVICE_MONITOR, nested("metrics.service.enabled", False)), r"needs metrics\.service\.enabled"
    ),
    "no account": Wrong(nested("serviceAccount.create", False), r"serviceAccount\.name: name the existing account"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_wrong_value_is_refused(helm: Helm, wrong: Wrong) -> None:
    with pytest.raises(RefusedError, match=wrong.says):
        helm.render(wrong.values)


def test_values_of_a_parent_chart_are_let_in(helm: Helm) -> None:
    helm.render({"global": {"imageRegistry": "mirror"}})


def test_every_object_of_the_schema_is_closed_and_described() -> None:
    def walk(path: str, node: Object) -> None:
        assert node.get("description"), f"{path or 'the schema'} has no description"
        if "properties" in node:
            assert node["additionalProperties"] is False, f"{path} lets misspelt values in"
            for key, inner in node["properties"].items():
                walk(f"{path}.{key}", inner)
        if "items" in node:
            walk(f"{path}[]", node["items"])

    walk("", values_table.schema())


def test_every_value_has_a_default_and_no_other_is_described() -> None:
    described = set(values_table.schema()["properties"]) - {"global"}
    assert described == set(values_table.defaults())
    values_table.leaves()  # a default without schema is a KeyError


def test_every_default_has_a_comment_above() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    names = {path.rpartition(".")[2] for path in (value.path for value in values_table.leaves())}
    bare = [
        line
        for above, line in zip(["", *lines], lines, strict=False)
        if (key := re.match(r"\s*(\w+):", line)) and key[1] in names and not above.lstrip().startswith("#")
        # A group's comment stands above its values, and the name may be a group's elsewhere.
        and not line.rstrip().endswith(":")
    ]
    assert bare == []


def test_readme_lists_the_values() -> None:
    assert values_table.written() == values_table.table(), "run: python -m tests.chart.values_table"
