"""`python -m quantuner.controller`: one operator process without peers, as the chart runs it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time

import kopf

from quantuner.api.errors import QuantunerError
from quantuner.controller.cluster import Cluster
from quantuner.controller.handlers import Operator, kopf_settings
from quantuner.controller.namespaces import served
from quantuner.controller.settings import Settings, parse

logger = logging.getLogger("quantuner.controller")

# An API server takes resources nested 10,000 deep. One that Python refuses to read ends the watch, and so the operator
# of all tenants, at each start anew. JSON of any depth up to this limit was read, written and compared in the 8 MiB
# of stack that a main thread has; at 30,000 the process dies. The rest of the limit is for the frames around it.
RECURSION_LIMIT = 12_000

# A line for each event and each probe says nothing that the reconciler's lines do not.
_NOISY = ("kopf.objects", "kopf.activities", "aiohttp.access")


def main() -> None:
    settings = parse(sys.argv[1:])
    sys.setrecursionlimit(RECURSION_LIMIT)
    # Kopf asks for the user's name, and the numeric user of a container has none.
    os.environ.setdefault("LOGNAME", "quantuner")
    _log(settings)
    try:
        asyncio.run(serve(settings))
    except QuantunerError as error:
        logger.error("%s", error)
        sys.exit(1)


async def serve(settings: Settings) -> None:
    """Serves what can be served until the process is told to end."""
    namespaces = await _served(settings)
    registry = kopf.OperatorRegistry()
    Operator(settings, time.monotonic, len(settings.namespaces) - len(namespaces)).register(registry)
    await kopf.operator(
        registry=registry,
        settings=kopf_settings(clusterwide=not settings.namespaces),
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=namespaces,
    )


async def _served(settings: Settings) -> tuple[str, ...]:
    if not settings.namespaces:
        return ()
    cluster = await Cluster.connect()
    try:
        return await served(cluster, settings.namespaces)
    finally:
        await cluster.close()


def _log(settings: Settings) -> None:
    form = kopf.LogFormat.JSON if settings.log_format == "json" else kopf.LogFormat.FULL
    kopf.configure(debug=settings.log_level == "debug", log_format=form)
    logging.getLogger().setLevel(settings.log_level.upper())
    if settings.log_level != "debug":
        for name in _NOISY:
            logging.getLogger(name).setLevel(logging.WARNING)


if __name__ == "__main__":
    main()
