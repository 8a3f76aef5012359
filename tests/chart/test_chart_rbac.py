"""Who may do what: the whole table, so that a right is never added in passing."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.chart.helm import NAME, NAMESPACE, Helm, Rendered, nested
from tests.operator import access

Rights = Mapping[str, set[str]]

SERVING = {
    "quantuner.dev/quantizationtunings": {"get", "list", "watch"},
    "quantuner.dev/quantizationtunings/status": {"patch"},
    "quantuner.dev/quantizationtunings/finalizers": {"update"},
    "kubeflow.org/mpijobs": {"get", "list", "watch", "create", "delete"},
    "/configmaps": {"get", "list", "watch", "create", "patch"},
    "/serviceaccounts": {"get", "create", "patch"},
    "rbac.authorization.k8s.io/roles": {"get", "create", "patch"},
    "rbac.authorization.k8s.io/rolebindings": {"get", "create", "patch"},
    "/pods": {"list", "watch"},
    "/events": {"create"},
}
SCANNING = {
    "apiextensions.k8s.io/customresourcedefinitions": {"list", "watch"},
    "/namespaces": {"list", "watch"},
}
VIEWING = {
    "quantuner.dev/quantizationtunings": {"get", "list", "watch"},
    "quantuner.dev/quantizationtunings/status": {"get", "list", "watch"},
}
EDITING = {"quantuner.dev/quantizationtunings": {"create", "update", "patch", "delete", "deletecollection"}}

# What the operator writes into the Role of a launcher (docs/design.md, objects of a tuning).
GRANTED_TO_LAUNCHERS = {"/configmaps": {"get", "patch"}}


def rights(role: Mapping[str, Any] | None) -> Rights:
    """A role as verbs by group/resource; a resource that stands in two rules is an error."""
    assert role is not None
    found: dict[str, set[str]] = {}
    for rule in role["rules"]:
        assert rule.keys() == {"apiGroups", "resources", "verbs"}
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                key = f"{group}/{resource}"
                assert key not in found
                found[key] = set(rule["verbs"])
    return found


def joined(role: Mapping[str, Any]) -> set[str]:
    """The cluster's own roles that collect this one."""
    aggregate = "rbac.authorization.k8s.io/aggregate-to-"
    return {key.removeprefix(aggregate) for key in role["metadata"]["labels"] if key.startswith(aggregate)}


@pytest.fixture(scope="session")
def scoped(helm: Helm) -> Rendered:
    return helm.render({"watchNamespaces": ["team-a", "team-b"]})


def test_operator_of_the_whole_cluster(defaults: Rendered) -> None:
    assert rights(defaults.one("ClusterRole", NAME)) == SERVING | SCANNING
    assert defaults.all("Role") == defaults.all("RoleBinding") == []


def test_operator_of_some_namespaces(scoped: Rendered) -> None:
    assert scoped.one("ClusterRole", NAME) is None
    assert scoped.all("ClusterRoleBinding") == []
    roles = scoped.all("Role")
    assert [role["metadata"]["namespace"] for role in roles] == ["team-a", "team-b"]
    assert all(rights(role) == SERVING for role in roles)
    assert [b["metadata"]["namespace"] for b in scoped.all("RoleBinding")] == ["team-a", "team-b"]


def test_the_operator_is_tested_with_these_rights(scoped: Rendered) -> None:
    """tests/operator runs it on a real API server."""
    assert access.rules() == scoped.all("Role")[0]["rules"]


@pytest.mark.parametrize("kind", ["ClusterRole", "Role"])
def test_bindings_bind_the_operators_account(defaults: Rendered, scoped: Rendered, kind: str) -> None:
    rendered = defaults if kind == "ClusterRole" else scoped
    account = rendered.one("ServiceAccount")
    assert account is not None
    bindings = rendered.all(f"{kind}Binding")
    assert bindings
    for binding in bindings:
        assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": NAME}
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": NAMESPACE}
        ]


def test_operator_has_what_it_grants() -> None:
    """The API server refuses a Role with a right that its creator lacks."""
    for resource, verbs in GRANTED_TO_LAUNCHERS.items():
        assert verbs <= SERVING[resource]


def test_users_roles_join_the_clusters_own(defaults: Rendered) -> None:
    view, edit = (defaults.one("ClusterRole", f"{NAME}-{name}") for name in ("view", "edit"))
    assert view
    assert edit
    assert rights(view) == VIEWING
    assert rights(edit) == EDITING
    assert joined(view) == {"view"}
    assert joined(edit) == {"edit", "admin"}


def test_nothing_is_granted_wholesale(helm: Helm) -> None:
    for values in ({}, {"watchNamespaces": ["a"]}, nested("rbac.userRoles", False)):
        for role in (o for o in helm.render(values) if o["kind"] in {"Role", "ClusterRole"}):
            assert not any("*" in rule[part] for rule in role["rules"] for part in rule)
            assert all("secrets" not in rule["resources"] for rule in role["rules"])
