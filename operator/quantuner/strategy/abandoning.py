"""Which trials of a search may be abandoned, and what is recorded of one that is.

A trial is of no interest where it can neither meet the criterion nor beat the best of the trials told before it: its
limit is the lesser of the target and that best. Ranks hear of the limit when they begin a trial, and may hear of an
older one, which is no tighter. So that no record depends on when they did, a trial worse than its limit is recorded as
if it had been abandoned at the limit, whatever is known of it: as the best accuracy that is worse than the limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

from quantuner.api.journal import Selection, Trial
from quantuner.api.spec import AccuracyCriterion
from quantuner.api.trial import Limit, TrialResult
from quantuner.space.config import TuneConfig

if TYPE_CHECKING:
    from quantuner.strategy.base import TuneStrategy


@dataclass
class Abandonment:
    """What was told so far, as far as it decides whether a trial is of interest. Only `tell` changes it."""

    criterion: AccuracyCriterion
    baseline: float
    """Accuracy of the fp32 model."""
    rows: tuple[int, ...]
    """Rows that each metric counted for it."""
    best: float | None = None
    """Accuracy of the best trial."""

    def tell(self, trial: Trial) -> None:
        """Takes the next trial told, in index order; the baseline is none."""
        if trial.accuracy is None or trial.bound:
            return
        if self.best is None or self.criterion.better(trial.accuracy, than=self.best):
            self.best = trial.accuracy

    @property
    def limit(self) -> Limit:
        """Of the next trial to be told."""
        lesser = min if self.criterion.higher_is_better else max
        accuracy = None if self.best is None else lesser(self.best, self.criterion.target(self.baseline))
        return Limit(accuracy=accuracy, higher_is_better=self.criterion.higher_is_better, rows=self.rows)

    def settled(self, result: TrialResult) -> TrialResult:
        """The next result as it is told. Takes it from a rank that knew this limit, or an older one."""
        limit, known = self.limit, result.bound if result.accuracy is None else result.accuracy
        if limit.accuracy is None or known is None or not limit.excludes(known):
            if result.is_bound:
                raise RuntimeError(
                    f"a trial was abandoned at {known}, which the limit {limit.accuracy} does not exclude"
                )
            return result
        proven = math.nextafter(limit.accuracy, -math.inf if limit.higher_is_better else math.inf)
        return replace(result, accuracy=proven, is_bound=True, bound=None, objectives={}, error="", traceback="")


def abandonment(strategy: TuneStrategy, baseline: Trial) -> Abandonment | None:
    """The one of a search that begins; None where every trial is measured to its end.

    That is: the user wants it, the journal is of a version without, the user's own function judges, or the strategy's
    own `meet_acc_req`, or trials are compared by measured objectives, which a part of an evaluation has not.
    """
    criterion = strategy.tuning.tuning_criterion
    if not criterion.early_abandonment or strategy.selection is Selection.OBJECTIVES:
        return None
    if not baseline.rows or baseline.accuracy is None or strategy.judges_itself:
        return None
    return Abandonment(strategy.tuning.accuracy_criterion, baseline.accuracy, baseline.rows)


class Payloads(Sequence[Any]):
    """What ranks are given, each made when it is taken: a later trial then has a tighter limit."""

    def __init__(self, configs: Iterable[TuneConfig], make: Callable[[TuneConfig], Any]) -> None:
        self._configs, self._make = list(configs), make

    def __len__(self) -> int:
        return len(self._configs)

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> Payloads: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Payloads(self._configs[index], self._make)
        return self._make(self._configs[index])

    def __iter__(self) -> Iterator[Any]:
        return (self._make(config) for config in self._configs)
