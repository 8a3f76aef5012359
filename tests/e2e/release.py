"""The operator on the test cluster as users install it: Helm and the chart."""

import contextlib
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import Cluster, ClusterError, ensure_images, ensure_up
from tests.cluster.images import Images
from tests.e2e.kube import Kube
from tests.e2e.others import RELEASE, SYSTEM, refusal
from tests.e2e.patience import PATIENCE_SECONDS

CHART = Path(__file__).parents[2] / "charts" / "quantuner"
OURS = f"app.kubernetes.io/name=quantuner,app.kubernetes.io/instance={RELEASE}"
CRD = "quantizationtunings.quantuner.dev"
TEST_VOLUME = "quantuner.dev/test-volume"
OF_A_TEST = {"quantuner.dev/test": "true"}
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass(frozen=True)
class Release:
    """The chart as installed."""

    kube: Kube
    cluster: Cluster
    images: Images

    def helm(self, *args: str) -> str:
        command = [str(self.cluster.program("helm")), "--namespace", SYSTEM, *args]
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.kube.environment(), timeout=PATIENCE_SECONDS + 60
        )
        assert not done.returncode, f"helm {' '.join(args)}: {done.stderr}"
        return done.stdout

    def chart(self) -> list[str]:
        """The chart and the values that name the images of the present sources."""
        values = [str(CHART)]
        for key, image in (("image", self.images.operator), ("tuner.image", self.images.tuner)):
            repository, _, tag = image.rpartition(":")
            values += ["--set-string", f"{key}.repository={repository},{key}.tag={tag}"]
        return [*values, "--wait", "--timeout", f"{PATIENCE_SECONDS:.0f}s"]


@contextlib.contextmanager
def installed() -> Iterator[Release]:
    """The images built, `helm install`, and at the end `helm uninstall`, which leaves the CRD and nothing else."""
    images, cluster = ensure_images(), ensure_up()
    kube = Kube(cluster.program("kubectl"), cluster.kubeconfig, SYSTEM)
    release = Release(kube, cluster, images)
    make_way(kube)
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": RESTRICTED}})
    # Other tests apply the CRD by itself, and an uninstalled release leaves it: this one takes it over.
    release.helm("install", RELEASE, "--take-ownership", "--force-conflicts", *release.chart())
    try:
        yield release
    finally:
        release.helm("uninstall", RELEASE, "--wait")
    kube.await_end("pod", "-l", OURS)
    left = kube.run("get", "deployments,services,serviceaccounts,pods", "-l", OURS, "-o", "name")
    assert not left.strip(), f"helm uninstall left {left}"
    assert kube.run("get", "crd", CRD, "-o", "name").strip()
    kube.run("delete", "namespace", SYSTEM)


def make_way(kube: Kube) -> None:
    """Removes what a killed run left: its operator would act on the next run's resources, the next operator on its.

    Raises ClusterError, and touches nothing, where somebody else's Quantuner is on the cluster: a user's existing one
    may be in production.
    """
    knows_tunings = kube.run("get", "crd", CRD, "--ignore-not-found", "-o", "name").strip()
    tunings = kube.items("quantizationtunings", "-A") if knows_tunings else []
    if reason := refusal(kube.items("deployments", "-A"), tunings):
        raise ClusterError(reason)
    kube.run("delete", "namespace", SYSTEM, "--ignore-not-found")
    kube.run("delete", "persistentvolumes", "-l", TEST_VOLUME, "--ignore-not-found")
    kube.run("delete", "namespaces", "-l", "=".join(*OF_A_TEST.items()), "--ignore-not-found", "--wait=false")
    for kind in ("clusterrole", "clusterrolebinding"):
        kube.run("delete", kind, "-l", OURS, "--ignore-not-found")


@contextlib.contextmanager
def fresh_namespace(admin: Kube, prefix: str = "e2e") -> Iterator[Kube]:
    """A namespace of its own that enforces the restricted Pod Security Standard."""
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    kube = Kube(admin.kubectl, admin.kubeconfig, name)
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": OF_A_TEST | RESTRICTED}})
    try:
        yield kube
    finally:
        kube.run("delete", "namespace", name, "--wait=false")
