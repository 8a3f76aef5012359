"""A trial by the strategy's own `evaluate`, which a user may have written: what it raises is the trial's failure."""

from __future__ import annotations

import math
import numbers
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.trial import Limit, TrialResult
from quantuner.engine.entrypoint import failed_trial

if TYPE_CHECKING:
    from quantuner.strategy.base import TuneStrategy


def evaluated(strategy: TuneStrategy, payload: Mapping[str, Any]) -> TrialResult:
    """The trial's result, in plain numbers. What breaks it off passes: `AbandonedError`, and what is no `Exception`."""
    started = time.monotonic()
    doing = f"{type(strategy).__name__}.evaluate"
    try:
        result = strategy.evaluate(payload)
        if not strategy.evaluates_itself:
            return result
        if not isinstance(result, TrialResult):
            raise TypeError(f"it must return a TrialResult, as super().evaluate does, not {type(result).__name__}")
        return _plain(result, doing, strategy, payload)
    except Exception as error:  # one configuration that fails must not end a search of thousands
        return failed_trial(error, doing, time.monotonic() - started)


def _plain(result: TrialResult, doing: str, strategy: TuneStrategy, payload: Mapping[str, Any]) -> TrialResult:
    """`result` as ranks send it, the journal writes it and strategies compare it.

    Raises `SearchError` for a value that is no finite number, and for what is missing.
    """
    error = str(result.error)
    if (result.accuracy is None) != bool(error):
        raise _invalid(doing, f"must give an accuracy or an error, not {result.accuracy!r:.40} and {error!r:.40}")
    accuracy = None if result.accuracy is None else _number(doing, "accuracy", result.accuracy)
    whole = accuracy is not None and not result.is_bound
    missing = [name for name in strategy.objectives.representation if whole and name not in result.objectives]
    if missing:
        raise _invalid(doing, f"gave no {', '.join(missing)}; keep the objectives that super().evaluate gives")
    if accuracy is not None and result.is_bound and not _excluded(accuracy, payload):
        raise _invalid(doing, f"gave is_bound with accuracy {accuracy!r}, which the payload's limit does not exclude")
    return TrialResult(
        accuracy=accuracy,
        is_bound=accuracy is not None and bool(result.is_bound),
        bound=None if result.bound is None else _number(doing, "bound", result.bound),
        rows=tuple(int(count) for count in result.rows),
        objectives={str(name): _number(doing, name, value) for name, value in result.objectives.items()},
        seconds=_number(doing, "seconds", result.seconds),
        error=error,
        traceback=str(result.traceback),
    )


def _number(doing: str, name: str, value: Any) -> float:
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # NumPy scalars and 0-d tensors
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise _invalid(doing, f"gave {value!r:.40} as {name}, which must be one finite number")
    return float(value)


def _excluded(accuracy: float, payload: Mapping[str, Any]) -> bool:
    return "limit" in payload and Limit.from_plain(payload["limit"]).excludes(accuracy)


def _invalid(doing: str, what: str) -> SearchError:
    return SearchError(Failure.EVALUATION_NOT_A_NUMBER, f"{doing} {what}")
