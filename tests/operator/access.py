"""The identity of the operator under test: a ServiceAccount with the least that it needs, proven by these tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.e2e.kube import Kube

ACCOUNT = "operator-under-test"

RULES: list[dict[str, Any]] = [
    {"apiGroups": ["quantuner.dev"], "resources": ["quantizationtunings"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["quantuner.dev"], "resources": ["quantizationtunings/status"], "verbs": ["patch"]},
    {
        "apiGroups": ["kubeflow.org"],
        "resources": ["mpijobs"],
        "verbs": ["get", "list", "watch", "create", "delete"],
    },
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch", "create", "patch"]},
    {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get", "create", "patch"]},
    {
        "apiGroups": ["rbac.authorization.k8s.io"],
        "resources": ["roles", "rolebindings"],
        "verbs": ["get", "create", "patch"],
    },
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
]
# Kopf's scanning of kinds and namespaces.
CLUSTER_RULES: list[dict[str, Any]] = [
    {
        "apiGroups": ["apiextensions.k8s.io"],
        "resources": ["customresourcedefinitions"],
        "verbs": ["list", "watch"],
    },
    {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]},
]


def grant(kube: Kube) -> str:
    """Creates the identity in the namespace of `kube`; its token."""
    rbac = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": kube.namespace}
    unique = f"{ACCOUNT}-{kube.namespace}"
    scopes = {"": (ACCOUNT, RULES), "Cluster": (unique, CLUSTER_RULES)}
    kube.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}})
    for scope, (name, rules) in scopes.items():
        role = {"apiGroup": rbac, "kind": f"{scope}Role", "name": name}
        kube.apply(
            {"apiVersion": f"{rbac}/v1", "kind": f"{scope}Role", "metadata": {"name": name}, "rules": rules},
            {
                "apiVersion": f"{rbac}/v1",
                "kind": f"{scope}RoleBinding",
                "metadata": {"name": name},
                "roleRef": role,
                "subjects": [subject],
            },
        )
    return kube.run("create", "token", ACCOUNT).strip()


def revoke(kube: Kube) -> None:
    """Removes what outlives the namespace."""
    unique = f"{ACCOUNT}-{kube.namespace}"
    kube.run("delete", "clusterrole,clusterrolebinding", unique, "--ignore-not-found")


def write_kubeconfig(path: Path, admin: Path, token: str, server: str | None = None) -> Path:
    """A kubeconfig of the identity; `server` in place of the cluster's own address."""
    cluster = dict(yaml.safe_load(admin.read_text())["clusters"][0]["cluster"])
    if server is not None:
        cluster = {"server": server}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(config))
    return path
