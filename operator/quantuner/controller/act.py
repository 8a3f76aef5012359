"""Does what was decided. Every step may be done again: what exists already is success, if it is ours."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from quantuner.api.conditions import Failure, Reason
from quantuner.api.errors import QuantunerError
from quantuner.controller.cluster import (
    Cluster,
    ClusterError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
)
from quantuner.controller.objects import EVENT, MPIJOB, Key, controller_of, identify, is_owned
from quantuner.controller.observe import Refusal
from quantuner.controller.verdict import Create, Delete, Merge

logger = logging.getLogger(__name__)


class RefusedError(QuantunerError):
    """The API server does not let us write; carries what `decide` has to know."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.what}: {refusal.message}")
        self.refusal = refusal


async def write_objects(cluster: Cluster, key: Key, writes: Iterable[Create | Merge]) -> None:
    """Raises `RefusedError`, or `ConflictError` where the cluster is no longer as it was observed."""
    for write in writes:
        try:
            if isinstance(write, Create):
                await _create(cluster, key, write)
            else:
                await _merge(cluster, key, write)
        except (InvalidError, ForbiddenError, NotFoundError) as error:
            raise RefusedError(_refusal(write, error)) from error


async def _create(cluster: Cluster, key: Key, write: Create) -> None:
    id_ = identify(write.manifest)
    try:
        await cluster.create(id_.kind, key.namespace, write.manifest)
    except ConflictError:
        owner = controller_of(write.manifest)
        live = await cluster.get(id_.kind, key.namespace, id_.name)
        if owner is None or live is None or not is_owned(live, owner["uid"]):
            raise  # seen as a name conflict at the next look


async def _merge(cluster: Cluster, key: Key, write: Merge) -> None:
    try:
        await cluster.merge(write.target.kind, key.namespace, write.target.name, write.patch)
    except NotFoundError as error:  # deleted since it was observed
        raise ConflictError(f"change {write.target}", error.status, error.message) from error


async def delete_objects(cluster: Cluster, key: Key, deletes: Iterable[Delete]) -> None:
    for delete in deletes:
        await cluster.delete(delete.target.kind, key.namespace, delete.target.name, delete.uid)


async def post_events(cluster: Cluster, key: Key, events: Iterable[dict[str, Any]]) -> None:
    """An event is named after what it tells: one that exists has been posted."""
    for event in events:
        try:
            await cluster.create(EVENT, key.namespace, event)
        except ConflictError:
            continue
        except (ForbiddenError, InvalidError, NotFoundError) as error:
            # The status says the same: it must not be held up by what only announces it.
            logger.warning("%s: no event %s: %s", key, event["reason"], error)


def _refusal(write: Create | Merge, error: ClusterError) -> Refusal:
    id_ = identify(write.manifest) if isinstance(write, Create) else write.target
    what = f"{'create' if isinstance(write, Create) else 'change'} {id_}"
    if isinstance(error, NotFoundError) and id_.kind is MPIJOB:
        remedy = "install mpi-operator 0.8 or newer; the search starts as soon as it is there"
        text = f"this cluster has no kind {MPIJOB.api_version} MPIJob: {remedy}"
        return Refusal(Failure.MPIJOB_REFUSED, what, text, permanent=False)
    reason = Failure.MPIJOB_REFUSED if id_.kind is MPIJOB else Reason.REFUSED
    # A running search is not ended because an object of its cannot be changed.
    permanent = isinstance(error, InvalidError) and isinstance(write, Create) and id_.kind is MPIJOB
    return Refusal(reason, what, error.message, permanent)
