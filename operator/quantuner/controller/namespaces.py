"""Which of the given namespaces can be served: asked once, before Kopf watches them.

Kopf ends the process when a list is refused for a minute. A namespace that was deleted, and its RoleBinding with it, is
refused for ever: the others would be served a minute at a time, between ever longer pauses of the kubelet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from quantuner.api import names
from quantuner.api.errors import QuantunerError
from quantuner.controller.cluster import Cluster, ClusterError, ForbiddenError, NotFoundError
from quantuner.controller.objects import TUNING

logger = logging.getLogger(__name__)

PAUSES = (1.0, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0)  # seconds between attempts, as Kopf has them
# The label of what the operator makes. Tunings have none, so that the answer is short however many there are.
_FEW = names.LABEL_TUNING
_RESTART = "then restart the operator (kubectl rollout restart)"


class NothingToServeError(QuantunerError):
    """Not one of the given namespaces can be served."""


async def served(cluster: Cluster, namespaces: Sequence[str], pauses: Sequence[float] = PAUSES) -> tuple[str, ...]:
    """Those whose tunings can be listed; each other one is logged with what to do.

    Raises `NothingToServeError` where none is left, and `ClusterError` where the API server stays away.
    """
    refusals = await asyncio.gather(*(_refusal(cluster, namespace, pauses) for namespace in namespaces))
    for namespace, refusal in zip(namespaces, refusals, strict=True):
        if refusal is not None:
            logger.error("namespace %s is not served: %s; %s, %s", namespace, refusal, _remedy(refusal), _RESTART)
    left = tuple(n for n, refusal in zip(namespaces, refusals, strict=True) if refusal is None)
    if namespaces and not left:
        raise NothingToServeError(f"none of the namespaces {', '.join(namespaces)} can be served; see above")
    return left


def _remedy(refusal: ClusterError) -> str:
    if isinstance(refusal, NotFoundError):
        return f"apply the CustomResourceDefinition {TUNING.plural}.{names.GROUP}"
    return f"bind the chart's Role there, which may list and watch {TUNING.plural}, or name that namespace no more"


async def _refusal(cluster: Cluster, namespace: str, pauses: Sequence[float]) -> ClusterError | None:
    """What the API server says where it does not let tunings be listed; other errors are asked about again."""
    for pause in pauses:
        try:
            return await _asked(cluster, namespace)
        except ClusterError as error:
            logger.warning("%s; again in %.0f s", error, pause)
            await asyncio.sleep(pause)
    return await _asked(cluster, namespace)


async def _asked(cluster: Cluster, namespace: str) -> ClusterError | None:
    try:
        await cluster.list(TUNING, namespace, _FEW)
    except (ForbiddenError, NotFoundError) as error:
        return error
    return None
