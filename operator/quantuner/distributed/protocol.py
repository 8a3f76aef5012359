"""The messages between master and slave. Plain data; a trial is its number and an opaque payload."""

from dataclasses import dataclass
from typing import Any

from quantuner.api.trial import TrialResult


@dataclass(frozen=True)
class Assign:
    """Master to slave: evaluate this trial and answer with a Done."""

    index: int
    payload: Any


@dataclass(frozen=True)
class Done:
    """Slave to master: the trial's result."""

    index: int
    result: TrialResult


@dataclass(frozen=True)
class End:
    """Master to slave: no trial follows; leave the loop."""


Message = Assign | Done | End
