"""Folders of this machine, which is the node, as volumes of pods."""

from pathlib import Path

from tests.e2e.kube import Kube, Object
from tests.e2e.release import TEST_VOLUME


def volume_in(kube: Kube, folder: Path) -> Path:
    """The claim `models`, bound to a new folder in `folder`; pods write there as their own user."""
    path = folder / "volume"
    path.mkdir(mode=0o777)
    path.chmod(0o777)
    for parent in list(path.parents)[:3]:
        parent.chmod(parent.stat().st_mode | 0o755)
    size = {"storage": "1Gi"}
    common = {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": f"models-{kube.namespace}"}
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"models-{kube.namespace}", "labels": {TEST_VOLUME: "true"}},
            "spec": {
                "capacity": size,
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(path)},
                "claimRef": {"namespace": kube.namespace, "name": "models"},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "models"},
            "spec": {**common, "resources": {"requests": size}},
        },
    )
    # A pod that comes before its claim is bound may miss that, and is looked at again after five minutes.
    kube.await_object("persistentvolumeclaim", "models", _is_bound, "bound")
    return path


def _is_bound(claim: Object) -> bool:
    return bool(claim.get("status", {}).get("phase") == "Bound")
