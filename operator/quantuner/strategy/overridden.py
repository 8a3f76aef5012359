"""A strategy whose class a user wrote, perhaps for Neural Compressor: how it is made, and how it searches."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantuner.api.conditions import Failure
from quantuner.api.errors import QuantunerError, SearchError
from quantuner.api.journal import Finished
from quantuner.engine.entrypoint import user_error
from quantuner.engine.judging import judged_by

if TYPE_CHECKING:
    from quantuner.strategy.base import TuneStrategy


WAYS = ("stages", "distributed_next_tune_cfg_lst", "next_tune_cfg")
"""Methods by which a strategy may ask; where a class defines several, the first."""
_BASE = "quantuner.strategy.base"
"""Where the ways are declared."""
_PACKAGE = Path(__file__).parents[1]


def refuse_unread(cls: type) -> None:
    """Raises `TypeError` for a strategy whose own `initial_tuning_cfg` nobody calls: it asks by a shipped one's way."""
    asks = next((one for one in cls.__mro__ if any(way in vars(one) for way in WAYS)), cls)
    if asks.__module__.startswith("quantuner.strategy.") and asks.__module__ != _BASE:
        raise TypeError(
            f"{cls.__name__} has an initial_tuning_cfg of its own, which {asks.__name__} does not read: it begins with "
            "the first options of the tuning space. Narrow that with set_tuning_space(conf), or define stages or "
            "next_tune_cfg too"
        )


def made(
    cls: Callable[..., TuneStrategy],
    model: Any,
    conf: Any,
    *,
    eval_dataloader: Iterable[Any] | None = None,
    eval_metric: Any = None,
    **others: Any,
) -> TuneStrategy:
    """A strategy of that class, which is given what is there and nothing of what is None.

    Neural Compressor 2.1's constructor takes no `eval_metric`; such a one is given what judges as a function. Raises
    what the constructor and `judged_by` raise.
    """
    judging = _there(eval_dataloader=eval_dataloader, eval_metric=eval_metric)
    if _takes(cls, judging):
        return cls(model, conf, **_there(**others), **judging)
    others["eval_func"] = judged_by(others.get("eval_func"), eval_dataloader, eval_metric)
    strategy = cls(model, conf, **_there(**others))
    strategy.eval_dataloader, strategy.eval_metric = eval_dataloader, eval_metric  # ranks compare the loader's content
    return strategy


def _there(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _takes(cls: Callable[..., Any], names: Iterable[str]) -> bool:
    parameters = inspect.signature(cls).parameters
    any_name = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    return any_name or all(name in parameters for name in names)


def traversed(strategy: TuneStrategy, rank: int) -> Finished | None:
    """Searches by the strategy's own `traverse`, which may return nothing, as Neural Compressor's do.

    All ranks call it. Returns how the search ended on rank 0, None elsewhere. Raises what `traverse` raises, as
    `SearchError` (StrategyRaised) what the user's own code in it does, and where this rank has taken no part in a
    search.
    """
    strategy.end = strategy.served = None
    try:
        returned = strategy.traverse()
    except Exception as error:
        if _is_users(strategy, error):
            raise user_error(Failure.STRATEGY_RAISED, type(strategy).__name__, error) from error
        raise
    end = returned if isinstance(returned, Finished) else strategy.end
    if (strategy.served if rank else end) is None:
        raise SearchError(
            Failure.STRATEGY_RAISED,
            f"{type(strategy).__name__} returned from its search without an end; let its traverse, "
            f"distributed_traverse and {'slave' if rank else 'master'}_worker_handle call super()'s",
        )
    return None if rank else end


def _is_users(strategy: TuneStrategy, error: Exception) -> bool:
    """Whether a method of the user's class raised it, and not what that calls of ours; MPI's errors are nobody's."""
    if isinstance(error, QuantunerError) or type(error).__module__.startswith("mpi4py"):
        return False
    own = {_file_of(cls) for cls in type(strategy).__mro__ if not cls.__module__.startswith(f"{_PACKAGE.name}.")}
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    last = next(file for file in reversed(files) if file in own or _PACKAGE in file.parents)
    return last in own


def _file_of(cls: type) -> Path | None:
    try:
        return Path(inspect.getfile(cls))
    except (TypeError, OSError):  # built in, or made by no file
        return None
