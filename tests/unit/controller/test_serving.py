"""The ports of the operator, asked by the addresses that a cluster of IPv4, of IPv6 or of both has."""

from __future__ import annotations

import asyncio
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge

from quantuner.controller import serving
from quantuner.controller.handlers import Operator
from quantuner.controller.settings import Settings
from tests.unit.controller.api_server import ApiServer


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
        return True


IPV6 = pytest.param("[::1]", marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6"))
ADDRESSES = pytest.mark.parametrize("address", ["127.0.0.1", IPV6])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def get(address: str, port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}:{port}/{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def health(address: str, problem: str) -> tuple[int, str]:
    """What a probe of that address is told."""

    async def main() -> tuple[int, str]:
        port = free_port()
        runner = await serving.serve_health(port, lambda: problem)
        try:
            return await asyncio.to_thread(get, address, port, "healthz")
        finally:
            await runner.cleanup()

    return asyncio.run(main())


@ADDRESSES
def test_health_is_told_on_each_address(address: str) -> None:
    assert health(address, "") == (200, "ok")


def test_a_probe_hears_what_only_a_restart_helps_against() -> None:
    assert health("127.0.0.1", "a worker is stuck") == (503, "a worker is stuck")


@ADDRESSES
def test_metrics_are_served_on_each_address(address: str) -> None:
    registry = CollectorRegistry()
    Gauge("seen", "a metric", registry=registry).set(3)
    status, text = get(address, serving.serve_metrics(0, registry), "metrics")
    assert (status, "seen 3.0" in text) == (200, True)


def test_an_operator_says_that_it_is_well_from_its_start_to_its_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def main() -> None:
        server, (metrics, probed) = ApiServer(), (free_port(), free_port())
        operator = Operator(Settings(metrics_port=metrics, health_port=probed), time.monotonic, unwatched=1)
        assert "must be restarted" in operator.problem()
        async with server.serve():
            monkeypatch.setenv("KUBECONFIG", server.kubeconfig(tmp_path))
            await operator.start()
            assert await asyncio.to_thread(get, "127.0.0.1", probed, "healthz") == (200, "ok")
            assert "quantuner_namespaces_unwatched 1.0" in (await asyncio.to_thread(get, "127.0.0.1", metrics, ""))[1]
            await operator.stop()
        with pytest.raises(urllib.error.URLError):
            get("127.0.0.1", probed, "healthz")

    asyncio.run(main())


def test_without_ipv6_in_the_kernel_metrics_are_served_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    port = serving.serve_metrics(0, CollectorRegistry())
    assert get("127.0.0.1", port, "metrics")[0] == 200
