"""What listens: /metrics and /healthz, on every address of the pod.

Which of them the kubelet and Prometheus use is the cluster's choice, and a cluster of IPv6 alone has no other. Kopf's
own endpoint for probes takes one host, and asyncio keeps IPv4 from a socket for `::`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, start_http_server


def serve_metrics(port: int, registry: CollectorRegistry) -> int:
    """Serves until the process ends, from a thread of its own; the port, where `port` is 0 the one that was free."""
    # Linux gives IPv4 to a socket for `::`, too; without IPv6 in the kernel there is no such socket.
    address = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - who asks is not in this pod
    server, _thread = start_http_server(port, addr=address, registry=registry)
    return int(server.server_port)


async def serve_health(port: int, problem: Callable[[], str]) -> web.AppRunner:
    """/healthz, 200 where `problem` finds none; from the caller's loop, so that one which hangs is noticed."""

    async def answer(_: web.Request) -> web.Response:
        found = problem()
        return web.Response(status=503 if found else 200, text=found or "ok")

    app = web.Application()
    app.router.add_get("/healthz", answer)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()  # without a host asyncio listens on all of IPv4 and of IPv6
    return runner
