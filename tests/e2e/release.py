"""The operator on the test cluster as users install it: Helm and the chart."""

import contextlib
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import Cluster, ensure_images, ensure_up
from tests.cluster.images import Images
from tests.e2e.kube import Kube

SYSTEM = "quantuner-system"
CHART = Path(__file__).parents[2] / "charts" / "quantuner"
OURS = "app.kubernetes.io/name=quantuner"
TEST_VOLUME = "quantuner.dev/test-volume"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass(frozen=True)
class Release:
    """The chart as installed."""

    kube: Kube
    cluster: Cluster
    images: Images

    def helm(self, *args: str) -> str:
        command = [str(self.cluster.program("helm")), "--namespace", SYSTEM, *args]
        done = subprocess.run(command, capture_output=True, text=True, env=self.kube.environment(), timeout=180)
        assert not done.returncode, f"helm {' '.join(args)}: {done.stderr}"
        return done.stdout

    def chart(self) -> list[str]:
        """The chart and the values that name the images of the present sources."""
        values = [str(CHART)]
        for key, image in (("image", self.images.operator), ("tuner.image", self.images.tuner)):
            repository, _, tag = image.rpartition(":")
            values += ["--set-string", f"{key}.repository={repository},{key}.tag={tag}"]
        return [*values, "--wait", "--timeout", "120s"]


@contextlib.contextmanager
def installed() -> Iterator[Release]:
    """The images built, `helm install`, and at the end `helm uninstall`, which leaves the CRD and nothing else."""
    images, cluster = ensure_images(), ensure_up()
    kube = Kube(cluster.program("kubectl"), cluster.kubeconfig, SYSTEM)
    release = Release(kube, cluster, images)
    remove_what_a_killed_run_left(kube)
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": RESTRICTED}})
    # Other tests apply the CRD by itself, and an uninstalled release leaves it: this one takes it over.
    release.helm("install", "quantuner", "--take-ownership", "--force-conflicts", *release.chart())
    try:
        yield release
    finally:
        release.helm("uninstall", "quantuner", "--wait")
    kube.run("wait", "--for=delete", "pod", "-l", OURS, "--timeout=60s")
    left = kube.run("get", "deployments,services,serviceaccounts,pods", "-l", OURS, "-o", "name")
    assert not left.strip(), f"helm uninstall left {left}"
    assert kube.run("get", "crd", "quantizationtunings.quantuner.dev", "-o", "name").strip()
    kube.run("delete", "namespace", SYSTEM)


def remove_what_a_killed_run_left(kube: Kube) -> None:
    """An operator that nobody ended would act on the next run's resources."""
    kube.run("delete", "namespace", SYSTEM, "--ignore-not-found")
    kube.run("delete", "persistentvolumes", "-l", TEST_VOLUME, "--ignore-not-found")
    for kind in ("clusterrole", "clusterrolebinding"):
        kube.run("delete", kind, "-l", OURS, "--ignore-not-found")


@contextlib.contextmanager
def fresh_namespace(release: Release) -> Iterator[Kube]:
    """A namespace of its own that enforces the restricted Pod Security Standard."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    kube = Kube(release.kube.kubectl, release.kube.kubeconfig, name)
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    try:
        yield kube
    finally:
        kube.run("delete", "namespace", name, "--wait=false")
