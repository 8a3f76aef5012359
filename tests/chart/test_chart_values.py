"""Each value: set and unset in pairs, described, documented, and refused when it is wrong.

`CASES` names every value at least once; `test_no_value_is_left_out` holds that. What is not here: the
rights (test_chart_rbac.py), the CRD (test_chart_crd.py) and the alerts (test_chart_alerts.py).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from quantuner.controller import settings
from tests.chart import promtool as prometheus
from tests.chart import values_table
from tests.chart.helm import (
    CHART,
    NAME,
    NAMESPACE,
    OPERATOR,
    TUNER,
    Helm,
    Object,
    RefusedError,
    Rendered,
    merged,
    nested,
)

ABSENT = "<absent>"
DIGEST = f"sha256:{'0123456789abcdef' * 4}"
PEERS = [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}]

Look = Callable[[Rendered], Any]


def at(kind: str, path: str, name: str | None = None) -> Look:
    """What stands at a dotted path of the one object of this kind; numbers index lists, and a dot of a key is `\\.`."""

    def look(rendered: Rendered) -> Any:
        found: Any = rendered.one(kind, name)
        for key in (key.replace("\\.", ".") for key in re.split(r"(?<!\\)\.", path)):
            try:
                found = found[int(key)] if isinstance(found, list) else found[key]
            except (KeyError, IndexError, TypeError):
                return ABSENT
        return found

    return look


def pod(path: str) -> Look:
    return at("Deployment", f"spec.template.{path}")


def container(path: str) -> Look:
    return pod(f"spec.containers.0.{path}")


def setting(name: str) -> Look:
    """What the operator itself makes of the arguments."""
    return lambda rendered: getattr(settings.parse(rendered.operator["args"], {}), name)


def label(kind: str, key: str) -> Look:
    return at(kind, f"metadata.labels.{escaped(key)}")


def escaped(key: str) -> str:
    return key.replace(".", "\\.")


def not_starting(path: str) -> Look:
    return at("PrometheusRule", f"spec.groups.1.rules.1.{path}")


def stalled_offset(rendered: Rendered) -> list[str]:
    """The window of the alert; its own tests (test_chart_alerts.py) look at the whole expression."""
    expr = at("PrometheusRule", "spec.groups.1.rules.2.expr")(rendered)
    return re.findall(r"offset (\w+)", expr)


def interval(kind: str) -> Look:
    endpoints = "podMetricsEndpoints" if kind == "PodMonitor" else "endpoints"
    return at(kind, f"spec.{endpoints}.0.interval")


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
    also: Object = field(default_factory=dict)
    """Values that both renderings have, since the one in question needs them."""


POD_MONITOR = nested("metrics.podMonitor.enabled", True)
SERVICE_MONITOR = nested("metrics.serviceMonitor.enabled", True)
RULE = nested("metrics.prometheusRule.enabled", True)
POLICY = nested("networkPolicy.enabled", True)
ACCOUNT = nested("serviceAccount.name", "sa")
# Keys that the chart has as well.
CONTAINER, MANAGED = "kubectl.kubernetes.io/default-container", "app.kubernetes.io/managed-by"
KEEP = {"helm.sh/resource-policy": "keep"}
TOLERATION = {"key": "dedicated", "operator": "Equal", "value": "infra", "effect": "NoSchedule"}
AFFINITY = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}}
INTERVALS = ("metrics.podMonitor.interval", "metrics.serviceMonitor.interval")
PATIENCES = ("metrics.prometheusRule.stalledAfter", "metrics.prometheusRule.startWithin")
ENV = [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]

CASES = [
    Case("nameOverride", "qt", at("Deployment", "metadata.name"), "tuner-release-qt", NAME),
    Case("fullnameOverride", "whole", at("Deployment", "metadata.name"), "whole", NAME),
    Case("watchNamespaces", ["team-a", "team-b"], setting("namespaces"), ("team-a", "team-b"), ()),
    Case("watchNamespaces", ["team-a"], present("ClusterRole", NAME), False, True),
    Case("image.repository", "host:5000/o", container("image"), "host:5000/o:0.1.0", f"{OPERATOR}:0.1.0"),
    Case("image.tag", "0.2.0", container("image"), f"{OPERATOR}:0.2.0", f"{OPERATOR}:0.1.0"),
    Case("image.digest", DIGEST, container("image"), f"{OPERATOR}@{DIGEST}", f"{OPERATOR}:0.1.0"),
    Case("image.pullPolicy", "Never", container("imagePullPolicy"), "Never", "IfNotPresent"),
    Case("imagePullSecrets", [{"name": "key"}], pod("spec.imagePullSecrets"), [{"name": "key"}]),
    Case("tuner.image.repository", "host/t", setting("tuner_image"), "host/t:0.1.0", f"{TUNER}:0.1.0"),
    Case("tuner.image.tag", "cpu", setting("tuner_image"), f"{TUNER}:cpu", f"{TUNER}:0.1.0"),
    Case("tuner.image.digest", DIGEST, setting("tuner_image"), f"{TUNER}@{DIGEST}", f"{TUNER}:0.1.0"),
    Case("tuner.image.pullPolicy", "Always", setting("tuner_image_pull_policy"), "Always", "IfNotPresent"),
    Case("log.level", "debug", setting("log_level"), "debug", "info"),
    Case("log.format", "json", setting("log_format"), "json", "plain"),
    Case("health.port", 9081, setting("health_port"), 9081, 8081),
    Case("health.port", 9081, container("ports.1.containerPort"), 9081, 8081),
    Case("serviceAccount.create", False, present("ServiceAccount"), False, True, ACCOUNT),
    Case("serviceAccount.name", "sa", at("ServiceAccount", "metadata.name"), "sa", NAME),
    Case("serviceAccount.name", "sa", pod("spec.serviceAccountName"), "sa", NAME),
    Case("serviceAccount.name", "sa", at("ClusterRoleBinding", "subjects.0.name"), "sa", NAME),
    Case("serviceAccount.annotations", {"a": "b"}, at("ServiceAccount", "metadata.annotations"), {"a": "b"}),
    Case("rbac.create", False, present("ClusterRole", NAME), False, True),
    Case("rbac.create", False, present("ClusterRoleBinding"), False, True),
    Case("rbac.userRoles", False, present("ClusterRole", f"{NAME}-edit"), False, True),
    Case("rbac.userRoles", False, present("ClusterRole", f"{NAME}-view"), False, True),
    Case("crds.enabled", False, present("CustomResourceDefinition"), False, True),
    Case("crds.keep", False, at("CustomResourceDefinition", "metadata.annotations"), ABSENT, KEEP),
    Case("metrics.port", 9090, setting("metrics_port"), 9090, 8080),
    Case("metrics.port", 9090, container("ports.0.containerPort"), 9090, 8080),
    Case("metrics.port", 9090, at("Service", "spec.ports.0.port"), 9090, 8080),
    Case("metrics.service.enabled", False, present("Service"), False, True),
    Case("metrics.service.annotations", {"a": "b"}, at("Service", "metadata.annotations"), {"a": "b"}),
    Case("metrics.podMonitor.enabled", True, present("PodMonitor"), True, False),
    Case("metrics.podMonitor.interval", "5s", interval("PodMonitor"), "5s", also=POD_MONITOR),
    Case("metrics.podMonitor.labels", {"by": "p"}, label("PodMonitor", "by"), "p", also=POD_MONITOR),
    Case("metrics.podMonitor.labels", {MANAGED: "argo"}, label("PodMonitor", MANAGED), "argo", "Helm", POD_MONITOR),
    Case("metrics.serviceMonitor.enabled", True, present("ServiceMonitor"), True, False),
    Case("metrics.serviceMonitor.interval", "1m30s", interval("ServiceMonitor"), "1m30s", also=SERVICE_MONITOR),
    Case("metrics.serviceMonitor.labels", {"by": "p"}, label("ServiceMonitor", "by"), "p", also=SERVICE_MONITOR),
    Case(
        "metrics.serviceMonitor.labels", {MANAGED: "a"}, label("ServiceMonitor", MANAGED), "a", "Helm", SERVICE_MONITOR
    ),
    Case("metrics.prometheusRule.enabled", True, present("PrometheusRule"), True, False),
    Case("metrics.prometheusRule.labels", {"by": "p"}, label("PrometheusRule", "by"), "p", also=RULE),
    Case("metrics.prometheusRule.labels", {MANAGED: "argo"}, label("PrometheusRule", MANAGED), "argo", "Helm", RULE),
    Case("metrics.prometheusRule.startWithin", "2h", not_starting("for"), "2h", "30m", RULE),
    Case("metrics.prometheusRule.stalledAfter", "2d", stalled_offset, ["2d"], ["1h"], RULE),
    Case("dashboard.enabled", False, present("ConfigMap"), False, True),
    Case("dashboard.namespace", "monitoring", at("ConfigMap", "metadata.namespace"), "monitoring", NAMESPACE),
    Case("dashboard.labels", {"team": "ml"}, label("ConfigMap", "team"), "ml"),
    Case("dashboard.labels", {MANAGED: "argo"}, label("ConfigMap", MANAGED), "argo", "Helm"),
    Case("dashboard.labels", {"grafana_dashboard": None}, label("ConfigMap", "grafana_dashboard"), ABSENT, "1"),
    Case("dashboard.annotations", {"a": "b"}, at("ConfigMap", "metadata.annotations"), {"a": "b"}),
    Case("networkPolicy.enabled", True, present("NetworkPolicy"), True, False),
    Case("networkPolicy.metricsFrom", PEERS, at("NetworkPolicy", "spec.ingress.0.from"), PEERS, also=POLICY),
    Case("networkPolicy.metricsFrom", PEERS, at("NetworkPolicy", "spec.ingress.1.from"), ABSENT, also=POLICY),
    Case("resources.requests", {"cpu": "2"}, container("resources.requests.cpu"), "2", "50m"),
    Case("resources.limits", {"memory": "1Gi"}, container("resources.limits.memory"), "1Gi", "512Mi"),
    Case("nodeSelector", {"disk": "ssd"}, pod("spec.nodeSelector"), {"disk": "ssd"}),
    Case("tolerations", [TOLERATION], pod("spec.tolerations"), [TOLERATION]),
    Case("affinity", AFFINITY, pod("spec.affinity"), AFFINITY),
    Case("priorityClassName", "high", pod("spec.priorityClassName"), "high"),
    Case("podAnnotations", {"note": "x"}, pod("metadata.annotations.note"), "x"),
    Case("podAnnotations", {CONTAINER: "x"}, pod(f"metadata.annotations.{escaped(CONTAINER)}"), "x", "operator"),
    Case("podLabels", {"team": "ml"}, pod("metadata.labels.team"), "ml"),
    Case("podLabels", {MANAGED: "argo"}, pod(f"metadata.labels.{escaped(MANAGED)}"), "argo", "Helm"),
    Case("podLabels", {"team": "ml"}, at("Deployment", "spec.selector.matchLabels.team"), ABSENT),
    Case("extraEnv", ENV, container("env"), ENV),
    Case("terminationGracePeriodSeconds", 0, pod("spec.terminationGracePeriodSeconds"), 0, 30),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.value}={case.to}")
def test_value_set_and_unset(helm: Helm, defaults: Rendered, case: Case) -> None:
    unset = helm.render(case.also) if case.also else defaults
    assert case.look(unset) == case.otherwise
    assert case.look(helm.render(merged(case.also, nested(case.value, case.to)))) == case.then


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
    "no operator image": Wrong(
        nested("image.repository", ""),
        r"image\.repository is not set.*build images/operator/Containerfile.*--set image\.repository=",
    ),
    "no tuner image": Wrong(
        nested("tuner.image.repository", None),
        r"tuner\.image\.repository is not set.*build images/tuner/Containerfile.*--set tuner\.image\.repository=",
    ),
    "tag in the repository": Wrong(nested("image.repository", "reg/x:0.2"), r"'/image/repository'"),
    "tag in the tuner's repository": Wrong(
        nested("tuner.image.repository", "reg:5000/a/x:0.2"), r"'/tuner/image/repository'"
    ),
    "repository without a name": Wrong(nested("image.repository", "reg:5000/"), r"'/image/repository'"),
    "digest in the repository": Wrong(nested("image.repository", f"a@{DIGEST}"), r"'/image/repository'"),
    "digest cut short": Wrong(nested("tuner.image.digest", "sha256:12"), r"'/tuner/image/digest'"),
    "pull policy": Wrong(nested("image.pullPolicy", "Sometimes"), r"'/image/pullPolicy'.*'IfNotPresent'"),
    "pull secret as text": Wrong({"imagePullSecrets": ["key"]}, r"'/imagePullSecrets/0'.*want object"),
    "log level": Wrong(nested("log.level", "loud"), r"'/log/level'.*'debug'"),
    "log format": Wrong(nested("log.format", "xml"), r"'/log/format'.*'json'"),
    "port below 1024": Wrong(nested("metrics.port", 80), r"'/metrics/port'.*got 80, want 1,024"),
    "port as text": Wrong(nested("health.port", "8081"), r"'/health/port'.*want integer"),
    "alert without duration": Wrong(nested("metrics.prometheusRule.stalledAfter", ""), r"'/metrics/prometheusRule/"),
    **{
        f"{value} is {length}": Wrong(nested(value, length), f"'/{value.replace('.', '/')}'")
        for value in (*INTERVALS, *PATIENCES)
        for length in ("1m1h", "1h1h", "0s", "0h0m", "0", "1.5h", "-1h", "1h ", "1H", "5")
    },
    "label that is no text": Wrong(nested("dashboard.labels", {"a": 1}), r"'/dashboard/labels/a'.*want string"),
    "switch as text": Wrong(nested("crds.enabled", "false"), r"'/crds/enabled'.*want boolean"),
    "unknown resource block": Wrong(nested("resources.limit", {}), r"'/resources'.*'limit' not allowed"),
    "toleration": Wrong({"tolerations": [{"effect": "Never"}]}, r"'/tolerations/0/effect'"),
    "variable without name": Wrong({"extraEnv": [{"value": "x"}]}, r"'/extraEnv/0'.*'name'"),
    "grace": Wrong({"terminationGracePeriodSeconds": -1}, r"'/terminationGracePeriodSeconds'"),
    "name too long": Wrong({"fullnameOverride": "a" * 51}, r"'/fullnameOverride'"),
    "name with a digit first": Wrong({"fullnameOverride": "2nd"}, r"'/fullnameOverride'"),
    "one port twice": Wrong(nested("health.port", 8080), r"both 8080.*change one"),
    "two monitors": Wrong(merged(POD_MONITOR, SERVICE_MONITOR), r"count twice: enable one"),
    "monitor without service": Wrong(
        merged(SERVICE_MONITOR, nested("metrics.service.enabled", False)), r"needs metrics\.service\.enabled"
    ),
    **{
        f"label of the pod that it is selected by: {key}": Wrong(
            {"podLabels": {key: "x"}}, rf"podLabels\.{re.escape(key)}: .*find the pod.*take it out"
        )
        for key in ("app.kubernetes.io/name", "app.kubernetes.io/instance")
    },
    "no account": Wrong(nested("serviceAccount.create", False), r"serviceAccount\.name: name the existing account"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_wrong_value_is_refused(helm: Helm, wrong: Wrong) -> None:
    with pytest.raises(RefusedError, match=wrong.says):
        helm.render(wrong.values)


@pytest.mark.parametrize("length", ["1ms", "90m", "1h30m", "1h0m", "1y2w3d4h5m6s7ms"])
def test_every_duration_of_prometheus_is_taken(helm: Helm, promtool: Path, length: str, tmp_path: Path) -> None:
    rendered = helm.render(merged(RULE, POD_MONITOR, *(nested(value, length) for value in (*INTERVALS, *PATIENCES))))
    rule = rendered.one("PrometheusRule")
    assert rule is not None
    prometheus.check(promtool, rule["spec"]["groups"], tmp_path)
    assert interval("PodMonitor")(rendered) == length


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
        if (key := re.match(r"\s*(\w+):", line))
        and key[1] in names
        and not above.lstrip().startswith("#")
        # A line without a value opens a group, whose values have the comments.
        and not line.rstrip().endswith(":")
    ]
    assert bare == []


def test_readme_lists_the_values() -> None:
    assert values_table.written() == values_table.table(), "run: python -m tests.chart.values_table"
