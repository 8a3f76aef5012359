"""Values of `strategy_kwargs`: what a strategy can make something of. Each raises `SearchError` (TaskInvalid)."""

import difflib
import importlib
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.spec import AccuracyCriterion
from quantuner.engine.entrypoint import users_code
from quantuner.engine.metrics import Evaluation
from quantuner.engine.probes.errors import DISTANCES
from quantuner.engine.probes.hessian import LOSSES
from quantuner.options import checked_seed

Check = Callable[[str, Any], Any]
"""Takes key and value, and returns the value."""


def count(given: Mapping[str, Any], key: str, default: int) -> int:
    """A whole number from 1; of none, nothing would be tried."""
    return whole(key, given.get(key, default))


def whole(key: str, value: Any) -> int:
    """A whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _invalid(key, f"must be a whole number from 1, not {value!r}")
    return value


def weight(key: str, value: Any) -> float:
    """A finite number from 0."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise _invalid(key, f"must be a finite number from 0, not {value!r:.80}")
    return float(value)


def seed(key: str, value: Any) -> int:
    """A whole number that every generator takes."""
    try:
        return checked_seed(value)
    except (TypeError, ValueError) as error:
        raise _invalid(key, str(error).removeprefix("random_seed ")) from error


def distance(key: str, value: Any) -> str:
    """How errors of an output are measured."""
    name: str = _one_of(key, value, DISTANCES)
    return name


def loss(key: str, value: Any) -> Any:
    """A function, the name of one, `module:function`, or None."""
    if value is None or callable(value):
        return value
    if not (isinstance(value, str) and ":" in value):
        return _one_of(key, value, LOSSES, "module:function or a function")
    module, _, name = value.partition(":")
    with users_code(Failure.TASK_INVALID, f"importing tuningCriterion.strategyKwargs.{key}, {value!r:.80},"):
        found = getattr(importlib.import_module(module), name)
    if not callable(found):
        raise _invalid(key, f"must name a function, but {value} is {found!r:.80}")
    return value


def _one_of(key: str, value: Any, names: Collection[str], *others: str) -> Any:
    if not (isinstance(value, str) and value in names):
        near = difflib.get_close_matches(str(value), names, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise _invalid(key, f"must be one of {', '.join([*names, *others])}, not {value!r:.80}{hint}")
    return value


def hooks(given: Any) -> dict[str, Callable[[Any], Any]]:
    """The callbacks around training. Raises `ValueError` for what is none, since they come as an argument."""
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(callable(hook) for hook in given.values()):
        raise ValueError(f"q_hooks must be a dict of on_train_begin and on_train_end to functions, not {given!r:.80}")
    return dict(given)


def direction(judge: Any, criterion: AccuracyCriterion) -> None:
    """Refuses an eval_metric that says, or is, of another direction of the accuracy than the criterion."""
    said = judge.higher_is_better if isinstance(judge, Evaluation) else None
    if said is not None and said is not criterion.higher_is_better:
        better, other = ("higher", "lower") if said else ("lower", "higher")
        raise SearchError(
            Failure.TASK_INVALID,
            f"eval_metric is one of which {better} is better (its weights' signs included), and the accuracy criterion "
            f"says that {other} is; set the criterion's higherIsBetter (higher_is_better in Python) to {said}, or "
            "give negative weights",
        )


def _invalid(key: str, message: str) -> SearchError:
    return SearchError(Failure.TASK_INVALID, f"tuningCriterion.strategyKwargs.{key} {message}")
