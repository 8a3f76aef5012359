"""The objects of a tuning but its MPIJob, built from nothing but the resource: pure and deterministic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import yaml

from quantuner.api import names
from quantuner.api.spec import Tuning, digest
from quantuner.controller.objects import (
    CONFIGMAP,
    ROLE,
    ROLE_BINDING,
    SERVICE_ACCOUNT,
    TUNING,
    Kind,
    ObjectId,
)

# On the MPIJob
ANNOTATION_SPEC = f"{names.GROUP}/spec-hash"  # `spec_hash` of the resource it was made from
ANNOTATION_TRIALS = f"{names.GROUP}/trials-at-launch"
ANNOTATION_LAUNCHES = f"{names.GROUP}/launches-before"  # that the journal tells of
# On the tuning ConfigMap
ANNOTATION_IMAGE = f"{names.GROUP}/image"  # the image the search began with
ANNOTATION_FRUITLESS = f"{names.GROUP}/fruitless-launches"  # in a row, without a trial told
ANNOTATION_FORGIVEN = f"{names.GROUP}/failures-forgiven"  # failures in the journal that a suspension has answered
ANNOTATION_COUNTED = f"{names.GROUP}/last-counted"  # uid of the MPIJob counted last

TEXT_LIMIT_BYTES = 1_000_000  # of the 1 MiB that an API server lets a ConfigMap hold in all
RBAC_GROUP = "rbac.authorization.k8s.io"


def labels(tuning: Tuning) -> dict[str, str]:
    return {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_TUNING: tuning.name}


def metadata(tuning: Tuning, name: str, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Name, labels and the owner, so that deleting the resource deletes the object."""
    owner = {
        "apiVersion": TUNING.api_version,
        "kind": TUNING.kind,
        "name": tuning.name,
        "uid": tuning.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    meta = {"name": name, "namespace": tuning.namespace, "labels": labels(tuning), "ownerReferences": [owner]}
    return meta | ({"annotations": dict(annotations)} if annotations else {})


def _object(kind: Kind, meta: Mapping[str, Any], **rest: Any) -> dict[str, Any]:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": dict(meta), **rest}


def rank_body(admitted: Mapping[str, Any]) -> dict[str, Any]:
    """The resource as the ranks read it: without `suspend`, and without what changes on every write."""
    meta = {key: admitted["metadata"][key] for key in ("name", "namespace", "uid")}
    spec = {key: value for key, value in admitted["spec"].items() if key != "suspend"}
    return {"apiVersion": admitted["apiVersion"], "kind": admitted["kind"], "metadata": meta, "spec": spec}


def spec_hash(admitted: Mapping[str, Any]) -> str:
    """Changes when the user changes what a launch is made from.

    It is taken from the resource and not from the MPIJob built from it: an upgrade of the operator that
    builds another MPIJob must not restart every search of the cluster.
    """
    return digest(rank_body(admitted))


def build_tuning_configmap(tuning: Tuning, admitted: Mapping[str, Any], image: str) -> dict[str, Any]:
    text = _text(rank_body(admitted))
    meta = metadata(tuning, names.tuning_configmap(tuning.name), {ANNOTATION_IMAGE: image})
    return _object(CONFIGMAP, meta, data={names.TUNING_KEY: text})


class _Dense(yaml.SafeDumper):
    """Like JSON: texts in double quotes, in which no line break grows by its indentation."""


_Dense.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def _text(body: Mapping[str, Any]) -> str:
    """YAML for people. Its indentation makes many times as much of what is deep: that is written without."""
    text = yaml.safe_dump(body, sort_keys=True, allow_unicode=True)
    if len(text.encode()) <= TEXT_LIMIT_BYTES:
        return text
    dense: str = yaml.dump(body, Dumper=_Dense, default_flow_style=True, width=math.inf, allow_unicode=True)
    return dense


def build_journal_configmap(tuning: Tuning) -> dict[str, Any]:
    """Without data: what the launcher wrote is never touched."""
    return _object(CONFIGMAP, metadata(tuning, names.journal_configmap(tuning.name)))


def build_result_configmap(tuning: Tuning) -> dict[str, Any]:
    return _object(CONFIGMAP, metadata(tuning, names.result_configmap(tuning.name)))


def build_service_account(tuning: Tuning) -> dict[str, Any]:
    """Its token is mounted where a pod asks for it: in the launcher."""
    meta = metadata(tuning, names.account_name(tuning.name))
    return _object(SERVICE_ACCOUNT, meta, automountServiceAccountToken=False)


def build_role(tuning: Tuning) -> dict[str, Any]:
    """What the launcher may do: read and extend its own journal and result."""
    rule = {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": [names.journal_configmap(tuning.name), names.result_configmap(tuning.name)],
        "verbs": ["get", "patch"],
    }
    return _object(ROLE, metadata(tuning, names.account_name(tuning.name)), rules=[rule])


def build_role_binding(tuning: Tuning) -> dict[str, Any]:
    account = names.account_name(tuning.name)
    return _object(
        ROLE_BINDING,
        metadata(tuning, account),
        roleRef={"apiGroup": RBAC_GROUP, "kind": ROLE.kind, "name": account},
        subjects=[{"kind": SERVICE_ACCOUNT.kind, "name": account, "namespace": tuning.namespace}],
    )


def build_support(tuning: Tuning, admitted: Mapping[str, Any], image: str) -> list[dict[str, Any]]:
    """All that a launcher needs, in the order in which it is created."""
    return [
        build_tuning_configmap(tuning, admitted, image),
        build_journal_configmap(tuning),
        build_result_configmap(tuning),
        build_service_account(tuning),
        build_role(tuning),
        build_role_binding(tuning),
    ]


def support_ids(name: str) -> list[ObjectId]:
    """Names of what `build_support` builds for the tuning of that name."""
    account = names.account_name(name)
    return [
        ObjectId(CONFIGMAP, names.tuning_configmap(name)),
        ObjectId(CONFIGMAP, names.journal_configmap(name)),
        ObjectId(CONFIGMAP, names.result_configmap(name)),
        ObjectId(SERVICE_ACCOUNT, account),
        ObjectId(ROLE, account),
        ObjectId(ROLE_BINDING, account),
    ]
