"""Requests to an API server, and what is made of its answers."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter

import pytest
from kubernetes.aio.client import ApiClient, Configuration

from quantuner.controller.cluster import Cluster, ClusterError, ForbiddenError
from quantuner.controller.objects import CONFIGMAP
from tests.unit.controller.api_server import ApiServer

CONFIG = {"metadata": {"name": "a"}, "data": {}}


def test_each_request_is_counted_by_its_answer() -> None:
    heard: Counter[tuple[str, str]] = Counter()

    async def main() -> None:
        server = ApiServer()
        async with server.serve(lambda method, code: heard.update([(method, code)])) as cluster:
            assert await cluster.get(CONFIGMAP, "ns", "a") is None
            await cluster.create(CONFIGMAP, "ns", CONFIG)
            await cluster.get(CONFIGMAP, "ns", "a")
            server.faults["DELETE", "configmaps"] = (403, "a policy says no")
            with pytest.raises(ForbiddenError, match="a policy says no"):
                await cluster.delete(CONFIGMAP, "ns", "a", "uid")

    asyncio.run(main())
    assert heard == {("GET", "404"): 1, ("POST", "201"): 1, ("GET", "200"): 1, ("DELETE", "403"): 1}


def test_a_server_that_does_not_answer_is_counted_too() -> None:
    heard: list[tuple[str, str]] = []

    async def main(port: int) -> None:
        client = ApiClient(Configuration(host=f"http://127.0.0.1:{port}"))
        cluster = Cluster(client, lambda *answer: heard.append(answer))
        with pytest.raises(ClusterError, match="no answer from the API server"):
            await cluster.get(CONFIGMAP, "ns", "a")
        await cluster.close()

    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        asyncio.run(main(taken.getsockname()[1]))
    assert heard == [("GET", "none")]
