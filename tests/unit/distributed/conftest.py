"""An API server over HTTPS, and what a pod knows of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from quantuner.distributed.configmap import ConfigMaps
from tests.unit.distributed.api_server import ApiServer, certificate, service_account


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def api(pem: Path) -> Iterator[ApiServer]:
    server = ApiServer(pem)
    server.maps = {"journal": {}, "result": {}}
    yield server
    server.close()


@pytest.fixture
def account(pem: Path, tmp_path: Path) -> Path:
    return service_account(tmp_path / "account", pem)


@pytest.fixture
def configmaps(api: ApiServer, account: Path) -> ConfigMaps:
    return ConfigMaps(account, "127.0.0.1", api.port)
