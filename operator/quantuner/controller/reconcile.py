"""One round of one resource: observe, decide, act, tell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from quantuner.api.conditions import ConditionType, Reason
from quantuner.api.errors import InvalidResourceError
from quantuner.api.timestamps import utc_now
from quantuner.api.validation import admit
from quantuner.controller import act, events, status
from quantuner.controller.cluster import Cluster, ConflictError
from quantuner.controller.decide import decide
from quantuner.controller.echoes import Echoes
from quantuner.controller.metrics import Table
from quantuner.controller.objects import TUNING, Key, Manifest
from quantuner.controller.observe import Observation, observe
from quantuner.controller.settings import Settings
from quantuner.controller.symptoms import Onsets, symptoms
from quantuner.controller.verdict import RESYNC_SECONDS, Stance, Verdict

logger = logging.getLogger(__name__)

CONFLICT_SECONDS = 0.5  # somebody else wrote: look again, and compute anew


class Reconciler:
    """Brings one resource after the other nearer to what it asks for. Keeps nothing a restart would miss."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        table: Table,
        onsets: Onsets,
        echoes: Echoes,
        now: Callable[[], str] = utc_now,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._table = table
        self._onsets = onsets
        self._echoes = echoes
        self._now = now

    async def reconcile(self, key: Key) -> float | None:
        """Seconds until the next look, None where the resource is gone."""
        body = await self._cluster.get(TUNING, key.namespace, key.name)
        if body is None or "deletionTimestamp" in body["metadata"]:
            # The garbage collector removes what we own; creating anything now would work against it.
            self._table.forget(key)
            self._onsets.forget(key)
            self._echoes.forget(key)
            return None
        try:
            admitted = admit(body)
        except InvalidResourceError as error:
            return await self._reject(key, body, error)
        observation = await observe(self._cluster, key, body, admitted)
        try:
            return await self._drive(key, body, observation)
        except ConflictError as error:
            logger.debug("%s changed meanwhile: %s", key, error)
            return CONFLICT_SECONDS

    async def _drive(self, key: Key, body: Manifest, o: Observation) -> float:
        ages = self._onsets.ages(key, symptoms(o))
        verdict = decide(o, ages, self._settings)
        try:
            await act.write_objects(self._cluster, key, verdict.writes)
        except act.RefusedError as error:
            refused = replace(o, refusal=error.refusal)
            await self._conclude(key, body, refused, decide(refused, ages, self._settings))
            if error.refusal.permanent:
                return RESYNC_SECONDS
            raise  # back off, and try again
        await self._conclude(key, body, o, verdict)
        return verdict.after

    async def _conclude(self, key: Key, body: Manifest, o: Observation, verdict: Verdict) -> None:
        """Tells first and deletes then: what the pods said is on record before they go."""
        now = self._now()
        composed = status.compose(o, verdict, now)
        self._table.report(key, o.tuning, o.history, composed)
        await self._tell(key, body, composed, events.build_events(o, composed, now))
        await act.delete_objects(self._cluster, key, verdict.deletes)

    async def _tell(self, key: Key, body: Manifest, composed: dict[str, Any], told: list[dict[str, Any]]) -> None:
        await act.post_events(self._cluster, key, told)
        self._echoes.leave(key, body, composed)  # before the write, whose event may come before its answer
        if not await status.write(self._cluster, key, body, composed):
            return
        summary = _summary(composed)
        level = logging.DEBUG if summary == _summary(body.get("status", {})) else logging.INFO
        logger.log(level, "%s is %s", key, summary)

    async def _reject(self, key: Key, body: Manifest, error: InvalidResourceError) -> float:
        now = self._now()
        stance = Stance(False, Reason.INVALID, f"{error}; correct it, or delete it and apply the corrected one")
        composed = status.rejected(body, stance, now)
        self._table.reject(key, composed)
        found = events.transitions(body.get("status", {}), composed)
        await self._tell(key, body, composed, [events.build_event(body, *event, now) for event in found])
        return RESYNC_SECONDS


def _summary(told: Mapping[str, Any]) -> str:
    """The phase and the message of the condition that it comes from."""
    phase = told.get("phase", "")
    messages = {c["type"]: c["message"] for c in told.get("conditions", ())}
    return f"{phase}: {messages.get(_SPEAKS.get(phase, ConditionType.RUNNING), '')}"


_SPEAKS = {"Failed": ConditionType.FAILED, "Complete": ConditionType.COMPLETE, "Pending": ConditionType.ACCEPTED}
