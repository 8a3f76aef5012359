"""An operator of given namespaces, some of which it may not look into: what it says, and what Kopf gets."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import kopf
import pytest

from quantuner.controller import namespaces
from quantuner.controller.__main__ import main, serve
from quantuner.controller.cluster import ClusterError
from quantuner.controller.settings import Settings
from tests.unit.controller.api_server import Answer, ApiServer

FORBIDDEN = (403, 'quantizationtunings.quantuner.dev is forbidden: User "q" cannot list resource')
NO_CRD = (404, "the server could not find the requested resource")
AWAY = (503, "starting")


def served(asked: tuple[str, ...], pauses: tuple[float, ...] = (0.0, 0.0), **closed: list[Answer]) -> tuple[str, ...]:
    async def run() -> tuple[str, ...]:
        server = ApiServer()
        server.closed = closed
        async with server.serve() as cluster:
            return await namespaces.served(cluster, asked, pauses)

    return asyncio.run(run())


def test_the_order_is_kept_and_nothing_is_said_where_all_can_be_served(caplog: pytest.LogCaptureFixture) -> None:
    assert served(("b", "a")) == ("b", "a")
    assert not caplog.records


def test_one_without_rights_is_left_out_and_named_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    assert served(("a", "gone", "b"), gone=[FORBIDDEN]) == ("a", "b")
    (line,) = caplog.messages
    assert "namespace gone is not served" in line
    assert "cannot list resource" in line
    assert "may list and watch quantizationtunings" in line
    assert "kubectl rollout restart" in line


def test_without_the_crd_no_namespace_can_be_served(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(namespaces.NothingToServeError, match="none of the namespaces a, b can be served"):
        served(("a", "b"), a=[NO_CRD], b=[NO_CRD])
    assert "apply the CustomResourceDefinition quantizationtunings.quantuner.dev" in caplog.text


def test_an_api_server_that_is_not_ready_is_asked_again() -> None:
    assert served(("a", "b"), a=[AWAY, AWAY, FORBIDDEN]) == ("b",)


def test_one_that_stays_away_is_an_error() -> None:
    with pytest.raises(ClusterError, match="starting"):
        served(("a", "b"), a=[AWAY])


@pytest.fixture
def kopf_gets(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Kopf is started with, in place of starting it."""
    given: dict[str, Any] = {}

    async def operator(**arguments: Any) -> None:
        given.update(arguments)

    monkeypatch.setattr(kopf, "operator", operator)
    return given


def test_kopf_watches_those_that_are_left(
    kopf_gets: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def run() -> None:
        server = ApiServer()
        server.closed = {"gone": [FORBIDDEN]}
        async with server.serve():
            monkeypatch.setenv("KUBECONFIG", server.kubeconfig(tmp_path))
            await serve(Settings(namespaces=("a", "gone")))

    asyncio.run(run())
    assert (kopf_gets["namespaces"], kopf_gets["clusterwide"]) == (("a",), False)
    assert kopf_gets["settings"].scanning.disabled


def test_an_operator_of_the_whole_cluster_asks_nothing(
    kopf_gets: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    asyncio.run(serve(Settings()))
    assert (kopf_gets["namespaces"], kopf_gets["clusterwide"]) == ((), True)


def test_an_operator_that_can_serve_nothing_ends_with_what_to_do(
    kopf_gets: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def refuse(*_: object) -> None:
        raise namespaces.NothingToServeError("none of the namespaces a can be served")

    monkeypatch.setattr("quantuner.controller.__main__._served", refuse)
    monkeypatch.setattr("quantuner.controller.__main__._log", lambda _: None)
    monkeypatch.setattr("sys.setrecursionlimit", lambda _: None)
    monkeypatch.setattr("sys.argv", ["quantuner", "--namespace", "a"])
    with pytest.raises(SystemExit) as ended, caplog.at_level(logging.ERROR):
        main()
    assert ended.value.code == 1
    assert caplog.messages == ["none of the namespaces a can be served"]
    assert not kopf_gets
