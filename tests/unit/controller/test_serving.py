"""The ports of the operator, asked by the addresses that a cluster of IPv4, of IPv6 or of both has."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Gauge

from quantuner.controller import serving


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


def test_without_ipv6_in_the_kernel_metrics_are_served_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    port = serving.serve_metrics(0, CollectorRegistry())
    assert get("127.0.0.1", port, "metrics")[0] == 200
