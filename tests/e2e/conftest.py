"""The operator installed by Helm on the test cluster, Prometheus beside it, a namespace for each test."""

import socket
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.cluster import Cluster, ensure_images, ensure_up
from tests.e2e.kube import Kube
from tests.e2e.prometheus import Prometheus

SYSTEM = "quantuner-system"
CHART = Path(__file__).parents[2] / "charts" / "quantuner"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass(frozen=True)
class Release:
    """The chart as installed."""

    kube: Kube
    cluster: Cluster

    def helm(self, *args: str) -> str:
        command = [str(self.cluster.program("helm")), "--namespace", SYSTEM, *args]
        done = subprocess.run(command, capture_output=True, text=True, env=self.kube.environment(), timeout=180)
        assert not done.returncode, f"helm {' '.join(args)}: {done.stderr}"
        return done.stdout

    def values(self) -> list[str]:
        """Helm arguments that name the images of the present sources."""
        images = self.cluster.images
        values = []
        for key, image in (("image", images.operator), ("tuner.image", images.tuner)):
            repository, _, tag = image.rpartition(":")
            values += ["--set-string", f"{key}.repository={repository},{key}.tag={tag}"]
        return values


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    cluster = ensure_up()
    ensure_images()
    return cluster


@pytest.fixture(scope="session")
def release(cluster: Cluster) -> Iterator[Release]:
    """`helm install` as a user does it; at the end `helm uninstall`, which leaves the CRD and nothing else."""
    kube = Kube(cluster.program("kubectl"), cluster.kubeconfig, SYSTEM)
    release = Release(kube, cluster)
    if kube.run("get", "namespace", SYSTEM, "--ignore-not-found"):  # left by a run that was killed
        kube.run("delete", "namespace", SYSTEM)
    _remove_cluster_wide(kube)
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": RESTRICTED}})
    release.helm("install", "quantuner", str(CHART), *release.values(), "--wait", "--timeout", "120s")
    yield release
    release.helm("uninstall", "quantuner", "--wait")
    left = kube.run("get", "deployments,services,serviceaccounts,pods", "-l", "app.kubernetes.io/name=quantuner", "-o", "name")
    assert not left.strip()
    kube.run("delete", "namespace", SYSTEM)


def _remove_cluster_wide(kube: Kube) -> None:
    for kind in ("clusterrole", "clusterrolebinding"):
        kube.run("delete", kind, "-l", "app.kubernetes.io/name=quantuner", "--ignore-not-found")


@pytest.fixture
def kube(release: Release) -> Iterator[Kube]:
    """A fresh namespace that enforces the restricted Pod Security Standard."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    kube = Kube(release.kube.kubectl, release.kube.kubeconfig, name)
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    yield kube
    kube.run("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def prometheus(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A real Prometheus that scrapes the metrics Service every second."""
    folder = tmp_path_factory.mktemp("prometheus")
    service = release.kube.items("services", "-l", "app.kubernetes.io/name=quantuner")[0]
    target = f"{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [{"job_name": "quantuner", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with Prometheus.started(release.cluster.program("prometheus"), folder, _free_port()) as running:
        yield running


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


