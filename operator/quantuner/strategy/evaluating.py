"""A trial by the strategy's own `evaluate`, which a user may have written: what it raises is the trial's failure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from quantuner.api.trial import TrialResult
from quantuner.engine.entrypoint import failed_trial

if TYPE_CHECKING:
    from quantuner.strategy.base import TuneStrategy


def evaluated(strategy: TuneStrategy, payload: Mapping[str, Any]) -> TrialResult:
    """The trial's result. What breaks it off passes: `AbandonedError`, and what is no `Exception`."""
    started = time.monotonic()
    doing = f"{type(strategy).__name__}.evaluate"
    try:
        result = strategy.evaluate(payload)
        if not isinstance(result, TrialResult):
            raise TypeError(f"it must return a TrialResult, as super().evaluate does, not {type(result).__name__}")
    except Exception as error:  # one configuration that fails must not end a search of thousands
        return failed_trial(error, doing, time.monotonic() - started)
    return result
