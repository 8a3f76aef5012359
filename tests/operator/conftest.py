"""A real API server with the real mpi-operator, a namespace and an operator process for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster, ensure_up
from tests.e2e.kube import Kube
from tests.e2e.release import fresh_namespace
from tests.operator.access import administrator, grant, write_kubeconfig
from tests.operator.process import OperatorProcess
from tests.operator.proxy import Proxy

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The end-to-end tests install an operator for the whole cluster until the session ends.
    items.sort(key=lambda item: HERE not in item.path.parents)


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return ensure_up()


@pytest.fixture(scope="session")
def admin(cluster: Cluster) -> Kube:
    """kubectl as the cluster's administrator; the CRD is there."""
    return administrator(cluster)


@pytest.fixture
def kube(cluster: Cluster, admin: Kube) -> Iterator[Kube]:
    cluster.revive("mpi-operator")
    with fresh_namespace(admin, "operator") as kube:
        yield kube


@pytest.fixture
def token(kube: Kube) -> str:
    """Of the operator under test, which has this cluster for itself."""
    others = kube.run("get", "deployments", "-A", "-l", "app.kubernetes.io/name=quantuner", "-o", "name")
    assert not others.strip(), f"another operator would act on these tests' resources; remove {others}"
    return grant(kube)


@pytest.fixture
def operator(kube: Kube, token: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """Started, with a ServiceAccount's rights and no more."""
    kubeconfig = write_kubeconfig(tmp_path / "operator.conf", kube.kubeconfig, token)
    process = OperatorProcess(kubeconfig, kube.namespace, tmp_path / "operator.log")
    process.start()
    yield process
    if process.is_running():
        process.stop()


@pytest.fixture
def proxy(kube: Kube) -> Iterator[Proxy]:
    proxy = Proxy(kube.kubeconfig)
    yield proxy
    proxy.close()


@pytest.fixture
def fragile(kube: Kube, token: str, proxy: Proxy, tmp_path: Path) -> Iterator[OperatorProcess]:
    """Not yet started; speaks to the API server through `proxy`."""
    kubeconfig = write_kubeconfig(tmp_path / "operator.conf", kube.kubeconfig, token, proxy.url)
    process = OperatorProcess(kubeconfig, kube.namespace, tmp_path / "operator.log")
    yield process
    if process.is_running():
        process.stop()
