"""Values of `strategy_kwargs`, checked where a strategy reads them."""

from collections.abc import Mapping
from typing import Any

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError


def count(given: Mapping[str, Any], key: str, default: int) -> int:
    """A whole number from 1. Raises `SearchError` (TaskInvalid) for anything else: of none, nothing would be tried."""
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SearchError(
            Failure.TASK_INVALID, f"tuningCriterion.strategyKwargs.{key} must be a whole number from 1, not {value!r}"
        )
    return value
