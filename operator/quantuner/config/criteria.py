"""When a search is done and what it is for: accuracy and tuning criterion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, ClassVar

from quantuner.config.checks import Check, Checked, near, number, one_of, unboxed

OBJECTIVES = ("performance", "accuracy", "modelsize", "footprint")


class AccuracyCriterion(Checked):
    """How much accuracy may be lost: a fraction of the baseline (`relative`), or in the metric's unit (`absolute`)."""

    higher_is_better: bool
    criterion: str
    tolerable_loss: float
    _checks: ClassVar[Mapping[str, Check]] = {
        "higher_is_better": one_of(True, False),
        "criterion": one_of("relative", "absolute"),
        "tolerable_loss": number(),
    }

    def __init__(
        self, higher_is_better: bool = True, criterion: str = "relative", tolerable_loss: float = 0.01
    ) -> None:
        self.higher_is_better = higher_is_better
        self.criterion = criterion
        self.tolerable_loss = tolerable_loss

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("relative", "absolute"):  # setting either chooses it, once the loss is found good
            vars(self).update(vars(AccuracyCriterion(self.higher_is_better, name, value)))
        else:
            super().__setattr__(name, value)

    def _check_together(self, values: Mapping[str, Any]) -> None:
        loss = values.get("tolerable_loss", 0)  # __init__ sets one after the other
        if values.get("criterion") == "relative" and loss >= 1:
            raise ValueError(
                "does not fit: a relative tolerable_loss is a fraction of the baseline and must be below 1 (0.01 is "
                f"1 %), not {loss}; divide it by 100, or set `absolute`"
            )

    @property
    def relative(self) -> float | None:
        """The tolerable loss if the criterion is relative, else None."""
        return self.tolerable_loss if self.criterion == "relative" else None

    @property
    def absolute(self) -> float | None:
        return self.tolerable_loss if self.criterion == "absolute" else None


def _objectives(value: Any) -> Any:
    """A name, a list of names, or `{"objective": […], "weight": […], "higher_is_better": […]}`."""
    body = value if isinstance(value, Mapping) else {"objective": value}
    if unknown := [key for key in body if key not in ("objective", "weight", "higher_is_better")]:
        raise ValueError(f"as a dict has the keys objective, weight and higher_is_better, not {unknown}")
    names = body.get("objective", "performance")
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, (list, tuple)):
        raise ValueError("must be a name, a list of names, or a dict with the key objective")
    for name in names:
        one_of(*OBJECTIVES)(name)
    if not names or len(set(names)) < len(names):
        raise ValueError("must name at least one objective, and each once")
    for key, check in (("weight", number(least=0)), ("higher_is_better", one_of(True, False))):
        if key in body:
            _one_each(key, body[key], len(names), check)
    return value


def _one_each(key: str, values: Any, count: int, check: Check) -> None:
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"must give {key} as a list, with one per objective")
    if len(values) != count:
        raise ValueError(f"must give one {key} per objective: {count}, not {len(values)}")
    for value in values:
        check(value)


def _kwargs(value: Any) -> Any:
    if value is not None and not (isinstance(value, Mapping) and all(isinstance(k, str) for k in value)):
        raise ValueError("must be a dict with string keys, or None")
    return None if value is None else {key: _sayable(one, key) for key, one in value.items()}


def _sayable(value: Any, where: str) -> Any:
    """The value, NumPy's scalars as Python's own. Raises `ValueError` for what a resource can neither say nor name.

    That would not tell one search from another either, and a search that is resumed must be the same.
    """
    value = unboxed(value)
    if isinstance(value, (set, frozenset)):
        raise ValueError(f"has a set at {where}, whose order is another in every process; give a list")
    if isinstance(value, Mapping):
        return {key: _sayable(one, f"{where}.{key}") for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        kept = [_sayable(one, f"{where}[{place}]") for place, one in enumerate(value)]
        return tuple(kept) if isinstance(value, tuple) else kept
    if value is None or isinstance(value, (str, int, float, PurePath)) or callable(value):
        return value
    raise ValueError(
        f"has {type(value).__name__} at {where}, which a resource cannot say; give text, numbers, lists or dicts of "
        "these, a path or a function"
    )


def _strategy(value: Any) -> Any:
    if value == "sigopt":
        raise ValueError("sigopt stood on a closed service that has ended; use 'bayesian' or 'tpe'")
    if not isinstance(value, str) or not value:
        raise ValueError("must be the name of a strategy")
    return value.lower()


class TuningCriterion(Checked):
    """Which strategy searches, how long, and for which objectives.

    `strategy` reads "basic" where none is given, as in Neural Compressor; then `quant_level` decides. A strategy
    that is given searches, also at quantization level "auto", where Neural Compressor ignored it. `early_abandonment`,
    which is not Neural Compressor's, ends trials that can no longer matter where `eval_metric` is built in.
    """

    strategy_kwargs: Mapping[str, Any] | None
    timeout: float
    max_trials: int
    objective: Any
    early_abandonment: bool
    _checks: ClassVar[Mapping[str, Check]] = {
        "strategy": _strategy,
        "strategy_kwargs": _kwargs,
        "timeout": number(least=0),
        "max_trials": number(least=1, integer=True),
        "objective": _objectives,
        "early_abandonment": one_of(True, False),
    }

    def __init__(
        self,
        strategy: str | None = None,
        strategy_kwargs: Mapping[str, Any] | None = None,
        timeout: float = 0,
        max_trials: int = 100,
        objective: str | Sequence[str] | Mapping[str, Any] = "performance",
        early_abandonment: bool = True,
    ) -> None:
        if strategy is not None:
            self.strategy = strategy
        self.strategy_kwargs = strategy_kwargs
        self.timeout = timeout
        self.max_trials = max_trials
        self.objective = objective
        self.early_abandonment = early_abandonment

    def __getattr__(self, name: str) -> Any:
        if name == "strategy":  # not given
            return "basic"
        raise AttributeError(f"{type(self).__name__} has no {name!r}{near(name, self._checks)}")

    @property
    def named_strategy(self) -> str | None:
        """The strategy that was given; None where none was."""
        return vars(self).get("strategy")
