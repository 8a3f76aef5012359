"""The identity of the operator under test: a ServiceAccount with the rights that the chart gives in a namespace.

An operator of the whole cluster has the same in a ClusterRole, and may list and watch namespaces and
CustomResourceDefinitions; the end-to-end tests run one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import Cluster
from tests.e2e.kube import Kube, is_true
from tests.e2e.patience import eventually
from tests.e2e.release import CRD, fresh_namespace, make_way

ACCOUNT = "operator-under-test"

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "crds" / "quantizationtunings.yaml"
HELPERS = ROOT / "charts" / "quantuner" / "templates" / "_helpers.tpl"


def administrator(cluster: Cluster) -> Kube:
    """kubectl as the cluster's administrator; what a killed run left is gone, and the CRD is there."""
    kube = Kube(cluster.program("kubectl"), cluster.kubeconfig, "default")
    make_way(kube)
    kube.run("apply", "--server-side", "--force-conflicts", "-f", str(MANIFEST))
    # Not by `kubectl wait`, which gives up where conditions are null, as they are until the server has set one.
    kube.await_object("crd", CRD, is_true("Established"), "established")
    with fresh_namespace(kube, "operator") as inside:
        grant(inside)
        eventually(lambda: may_own(inside), "the API server takes a tuning for an owner")
    return kube


def rules() -> list[dict[str, Any]]:
    """The chart's own, read without Helm: nothing in this part of a template is filled in (tests/chart holds that)."""
    _, _, after = HELPERS.read_text().partition('{{- define "quantuner.rules" -}}\n')
    found: list[dict[str, Any]] = yaml.safe_load(after.partition("{{- end }}")[0])
    return found


def grant(kube: Kube) -> str:
    """Creates the identity, with rights in the namespace of `kube` alone; its token."""
    rbac = "rbac.authorization.k8s.io"
    meta = {"name": ACCOUNT}
    kube.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    kube.apply({"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": meta, "rules": rules()})
    kube.apply(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": kube.namespace}],
        }
    )
    return kube.run("create", "token", ACCOUNT).strip()


def may_own(kube: Kube) -> bool:
    """Whether the identity can create something that a QuantizationTuning owns.

    Not yet in the first seconds of a new CRD: OwnerReferencesPermissionEnforcement knows kinds by a list that the API
    server reads anew every 30 s. The operator tries again meanwhile, but the tests count what it asks.
    """
    owner = {"apiVersion": "quantuner.dev/v1alpha1", "kind": "QuantizationTuning", "name": "owner", "uid": "uid"}
    meta = {"name": "owned", "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}]}
    identity = f"--as=system:serviceaccount:{kube.namespace}:{ACCOUNT}"
    configmap = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
    return "created" in kube.run("create", "--dry-run=server", identity, "-f", "-", stdin=configmap, ok=False)


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
