"""The kinds the operator deals with, and whose an object is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from quantuner.api import names

Manifest = Mapping[str, Any]


class Key(NamedTuple):
    """Which QuantizationTuning."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Kind:
    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str, name: str | None = None) -> str:
        root = "/api" if "/" not in self.api_version else "/apis"
        collection = f"{root}/{self.api_version}/namespaces/{namespace}/{self.plural}"
        return collection if name is None else f"{collection}/{name}"


TUNING = Kind(names.API_VERSION, names.KIND, names.PLURAL)
CONFIGMAP = Kind("v1", "ConfigMap", "configmaps")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
POD = Kind("v1", "Pod", "pods")
EVENT = Kind("v1", "Event", "events")
ROLE = Kind("rbac.authorization.k8s.io/v1", "Role", "roles")
ROLE_BINDING = Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
MPIJOB = Kind("kubeflow.org/v2beta1", "MPIJob", "mpijobs")

KINDS = {(k.api_version, k.kind): k for k in (CONFIGMAP, SERVICE_ACCOUNT, ROLE, ROLE_BINDING, MPIJOB, EVENT)}


class ObjectId(NamedTuple):
    """Names one object inside a namespace."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.kind} {self.name}"


def identify(manifest: Manifest) -> ObjectId:
    return ObjectId(KINDS[manifest["apiVersion"], manifest["kind"]], manifest["metadata"]["name"])


def controller_of(manifest: Manifest) -> Manifest | None:
    """The owner reference of the object's controller."""
    references = manifest["metadata"].get("ownerReferences", ())
    return next((r for r in references if r.get("controller")), None)


def is_owned(manifest: Manifest, uid: str) -> bool:
    owner = controller_of(manifest)
    return owner is not None and owner["uid"] == uid


def annotation(manifest: Manifest | None, name: str) -> str | None:
    if manifest is None:
        return None
    value: str | None = (manifest["metadata"].get("annotations") or {}).get(name)
    return value
