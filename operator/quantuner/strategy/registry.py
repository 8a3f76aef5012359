"""Strategies by name."""

import difflib
from typing import Any, TypeVar

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError

_SUFFIX = "TuneStrategy"
_strategies: dict[str, type] = {}
RETIRED = {"sigopt": "stood on a closed service that has ended; use bayesian (a Gaussian process) or tpe"}
"""Strategies of Neural Compressor 2.x that are refused, and what to use."""

T = TypeVar("T", bound=type)


def strategy_registry(cls: T) -> T:
    """Class decorator that registers a TuneStrategy subclass; returns the class.

    The class name must end in `TuneStrategy`; what stands before it, in lower case, is the strategy's
    name in `tuningCriterion.strategy`. Raises `ValueError` for another class name, or a name that is taken.
    Source: neural_compressor.strategy.strategy.strategy_registry.
    """
    name = cls.__name__
    if not name.endswith(_SUFFIX) or name == _SUFFIX:
        raise ValueError(f"the name of a strategy's class must end in {_SUFFIX}, as My{_SUFFIX}; it is {name}")
    key = name.removesuffix(_SUFFIX).lower()
    taken = _strategies.get(key)
    if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"the strategy {key!r} is {taken.__module__}.{taken.__qualname__} already; rename {name}")
    _strategies[key] = cls
    return cls


def strategies() -> list[str]:
    """Names of all registered strategies, sorted."""
    return sorted(_strategies)


def strategy_class(name: str) -> Any:
    """The class registered as `name`. Raises `SearchError` (UnknownStrategy) with the names there are."""
    if name in RETIRED:
        raise SearchError(Failure.UNKNOWN_STRATEGY, f"tuningCriterion.strategy {name!r} {RETIRED[name]}")
    if name not in _strategies:
        near = difflib.get_close_matches(name, _strategies, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise SearchError(
            Failure.UNKNOWN_STRATEGY,
            f"tuningCriterion.strategy {name!r} is not known{hint}. Known: {', '.join(sorted(_strategies))}. "
            "A strategy of your own is registered by strategy_registry in the task's module",
        )
    return _strategies[name]
