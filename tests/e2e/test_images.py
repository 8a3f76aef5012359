"""The images as they are: not root, and nothing in them that builds programs."""

import pytest

from tests.e2e.kube import Kube, has_succeeded
from tests.e2e.release import Release

pytestmark = pytest.mark.cluster

LOOK = "id -u; for c in gcc cc g++ c++ clang make ld go; do command -v $c; done; true"
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize("name", ["operator", "tuner"])
def test_an_image_is_not_root_and_has_no_compiler(kube: Kube, release: Release, name: str) -> None:
    container = {
        "name": "look",
        "image": getattr(release.images, name),
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", LOOK],
        "securityContext": RESTRICTED,
    }
    pod_security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "securityContext": pod_security, "containers": [container]}
    kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    kube.await_object("pod", name, has_succeeded, "ended well")
    uid, *builders = kube.run("logs", name).split()
    assert int(uid) >= 1000
    assert builders == []
