"""What `decide` may answer: actions, and what the status shall say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from quantuner.api.conditions import Reason
from quantuner.api.journal import Failed
from quantuner.controller.objects import Manifest, ObjectId

# A level-triggered operator looks again even where no event came: an event may have been lost.
RESYNC_SECONDS = 300.0


@dataclass(frozen=True)
class Create:
    manifest: Manifest


@dataclass(frozen=True)
class Merge:
    target: ObjectId
    patch: Mapping[str, Any]


@dataclass(frozen=True)
class Delete:
    target: ObjectId
    uid: str
    """Only this very object, never a namesake that came after it."""


class Stance(NamedTuple):
    """Status, reason and message of one condition."""

    status: bool
    reason: str
    message: str


ACCEPTED = Stance(True, Reason.ACCEPTED, "the resource is valid and its names are free")
STOPPED = Stance(False, Reason.STOPPED, "the search failed")
NOT_SUSPENDED = Stance(False, Reason.NOT_SUSPENDED, "")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Writes come first, then the status, then deletes: what failed is on record before its pods go."""

    accepted: Stance = ACCEPTED
    running: Stance
    suspended: Stance = NOT_SUSPENDED
    failure: Failed | None = None
    """Found by the operator; the journal's own stand in the history."""
    keep: bool = False
    """The status stands as it is: the search is over, and its journal is no longer there to tell it again."""
    unseen: bool = False
    """The user's change counts as not seen yet, and the status stands but for `accepted`."""
    writes: tuple[Create | Merge, ...] = ()
    deletes: tuple[Delete, ...] = ()
    after: float = RESYNC_SECONDS
    """Seconds until the next look, if no event comes before."""
