"""The operator installed by Helm on the test cluster, Prometheus beside it, a namespace for each test."""

import socket
from collections.abc import Iterator

import pytest
import yaml

from tests.e2e.kube import Kube
from tests.e2e.prometheus import Prometheus
from tests.e2e.release import OURS, Release, fresh_namespace, installed


@pytest.fixture(scope="session")
def release() -> Iterator[Release]:
    with installed() as release:
        yield release


@pytest.fixture
def kube(release: Release) -> Iterator[Kube]:
    release.cluster.revive("mpi-operator")
    with fresh_namespace(release.kube) as kube:
        yield kube


@pytest.fixture(scope="session")
def prometheus(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A real Prometheus that scrapes the metrics Service every second."""
    folder = tmp_path_factory.mktemp("prometheus")
    service = release.kube.items("services", "-l", OURS)[0]
    target = f"{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [{"job_name": "quantuner", "honor_labels": True, "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with Prometheus.started(release.cluster.program("prometheus"), folder, _free_port()) as running:
        yield running


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
