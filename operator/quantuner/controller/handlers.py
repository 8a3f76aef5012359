"""Kopf's part: watches, which only wake keys, and the life of the process. Kopf writes to nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import kopf
from aiohttp import web
from kopf import OperatorSettings
from prometheus_client import PlatformCollector, ProcessCollector

from quantuner.api import names
from quantuner.controller.cluster import REQUEST_TIMEOUT_SECONDS, Cluster
from quantuner.controller.echoes import Echoes
from quantuner.controller.essence import NoEssence
from quantuner.controller.metrics import OperatorMetrics, Table
from quantuner.controller.objects import CONFIGMAP, MPIJOB, POD, TUNING, Key, Kind
from quantuner.controller.queue import CHANGED, MOVED, TOLD, Queue, Wake
from quantuner.controller.reconcile import Reconciler
from quantuner.controller.serving import serve_health, serve_metrics
from quantuner.controller.settings import Settings
from quantuner.controller.symptoms import Onsets

logger = logging.getLogger(__name__)

OURS = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY},{names.LABEL_TUNING}"
CHILDREN = (MPIJOB, CONFIGMAP, POD)
KOPF_PREFIX = f"kopf.{names.GROUP}"


class Operator:
    """One operator: registers itself with Kopf, and lives from its startup to its cleanup.

    `unwatched` of the namespaces that it was given are left out, which only its metrics need to know.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float], unwatched: int = 0) -> None:
        self._settings = settings
        self._table = Table()
        self._metrics = OperatorMetrics(self._table, unwatched)
        self._onsets = Onsets(clock)
        self._echoes = Echoes()
        self._cluster: Cluster | None = None
        self._queue: Queue[Key] | None = None
        self._health: web.AppRunner | None = None

    def register(self, registry: kopf.OperatorRegistry) -> None:
        kopf.on.login(registry=registry)(login)
        kopf.on.startup(registry=registry)(self.start)
        kopf.on.cleanup(registry=registry)(self.stop)
        kopf.on.event(*_selector(TUNING), registry=registry)(self.tuning_changed)
        for kind in CHILDREN:
            kopf.on.event(*_selector(kind), registry=registry, id=kind.plural)(self.child_changed)

    async def start(self, **_: Any) -> None:
        self._cluster = await Cluster.connect(self._metrics.answered)
        reconciler = Reconciler(self._cluster, self._settings, self._table, self._onsets, self._echoes)
        self._queue = Queue(reconciler.reconcile, self._metrics, self._settings.workers)
        self._metrics.watch(self._queue.depth, self._queue.longest_wait)
        ProcessCollector(registry=self._metrics.registry)
        PlatformCollector(registry=self._metrics.registry)
        port = serve_metrics(self._settings.metrics_port, self._metrics.registry)
        logger.info("metrics are served on port %d", port)
        self._health = await serve_health(self._settings.health_port, self.problem)

    async def stop(self, **_: Any) -> None:
        if self._queue is not None:
            await self._queue.close()
        if self._cluster is not None:
            await self._cluster.close()
        if self._health is not None:
            await self._health.cleanup()

    def problem(self) -> str:
        """What only a restart helps against; empty where there is no such thing."""
        if self._queue is None or self._queue.is_stuck():
            return "a reconcile worker is stuck or dead: the process must be restarted"
        return ""

    async def tuning_changed(self, event: Mapping[str, Any], namespace: str | None, name: str | None, **_: Any) -> None:
        gone = event["type"] == "DELETED"
        if gone or not self._echoes.is_echo(Key(namespace or "", name or ""), event["object"]):
            self._wake(namespace, name)

    async def child_changed(self, namespace: str | None, name: str | None, labels: Mapping[str, str], **_: Any) -> None:
        tuning = labels.get(names.LABEL_TUNING, "")
        told = name in (names.journal_configmap(tuning), names.result_configmap(tuning))
        self._wake(namespace, tuning, TOLD if told else MOVED)

    def _wake(self, namespace: str | None, name: str | None, why: Wake = CHANGED) -> None:
        if self._queue is not None and namespace and name:
            self._queue.add(Key(namespace, name), why)


def _selector(kind: Kind) -> tuple[str, str, str]:
    group, _, version = kind.api_version.rpartition("/")
    return group, version, kind.plural


def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """As `Cluster.connect` does, so that watches and writes are one and the same user."""
    if os.environ.get("KUBECONFIG"):
        return kopf.login_with_kubeconfig(**kwargs)
    return kopf.login_with_service_account(**kwargs)


def kopf_settings(*, clusterwide: bool) -> OperatorSettings:
    settings = OperatorSettings()
    # A Role in some namespaces cannot list namespaces and CRDs, and Kopf would wait for that right for minutes.
    settings.scanning.disabled = not clusterwide
    for kind in CHILDREN:
        settings.watching.label_selectors[_selector(kind)] = OURS
    # Journals may be of hundreds of KiB each, and Kopf holds what it listed until a worker of each object has idled.
    settings.watching.chunk_size = 20
    settings.queueing.idle_timeout = 0.1
    # Below the API server's own minutes: a connection that died silently is noticed.
    settings.watching.server_timeout = 600
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = REQUEST_TIMEOUT_SECONDS
    settings.networking.connect_timeout = 10
    # Nothing is ever persisted by handlers of events; these keep it so, and away from Kopf's shared names.
    settings.persistence.finalizer = f"{KOPF_PREFIX}/finalizer"
    settings.persistence.progress_storage = kopf.StatusProgressStorage(field="status.kopf")
    settings.persistence.diffbase_storage = NoEssence()
    settings.persistence.consistency_timeout = 60
    settings.posting.enabled = False  # events of the resource come from the reconciler, each once
    return settings
