"""A result as strategies see it, and the two questions asked of it: does it meet the criterion, is it the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from quantuner.api.selection import higher_is_better
from quantuner.api.spec import AccuracyCriterion, Objective
from quantuner.api.trial import TrialResult


class Result(NamedTuple):
    """What evaluating a configuration gave, in the form of Neural Compressor: `(accuracy, [objective values])`."""

    accuracy: float
    """Of a failed trial the worst there is: -inf, or inf where lower is better. Of an abandoned one a bound."""
    objectives: list[float]
    """In the order of the configured objectives; empty for a trial that failed or was abandoned."""


class Objectives:
    """The configured objectives, the baseline's result and the last one."""

    def __init__(self, objectives: Sequence[Objective], criterion: AccuracyCriterion) -> None:
        self.objectives = tuple(objectives)
        self.criterion = criterion
        self.baseline: Result | None = None
        self.val: Result | None = None
        """The result under consideration: the last one told."""

    @property
    def representation(self) -> list[str]:
        """Names of the objectives, in the order of their values."""
        return [o.name for o in self.objectives]

    @property
    def worst(self) -> float:
        """The accuracy that every other one beats."""
        return float("-inf") if self.criterion.higher_is_better else float("inf")

    def result(self, measured: TrialResult) -> Result:
        if measured.accuracy is None:
            return Result(self.worst, [])
        if measured.is_bound:
            return Result(measured.accuracy, [])
        return Result(measured.accuracy, [measured.objectives[o.name] for o in self.objectives])

    def accuracy_meet_req(self, last_result: Result | Sequence[object]) -> bool:
        """Whether an accuracy meets the criterion; exactly on target does.

        Raises `RuntimeError` before the baseline is known.
        """
        if self.baseline is None:
            raise RuntimeError("the baseline is measured before a result is judged; traverse() does so first")
        accuracy = float(last_result[0])  # type: ignore[arg-type]  # (accuracy, [objectives])
        return accuracy != self.worst and self.criterion.meets(accuracy, self.baseline.accuracy)

    def accuracy_meets(self) -> bool:
        """`accuracy_meet_req` of the result under consideration."""
        return self.val is not None and self.accuracy_meet_req(self.val)

    def compare(self, last: Result | None, baseline: Result | None = None) -> bool:
        """Whether `val` meets the criterion and no objective of it is worse than `last`'s.

        Source: Neural Compressor 2.x, Objective.compare. `baseline` replaces the stored one if given.
        """
        self.baseline = baseline or self.baseline
        return self.accuracy_meets() and self.is_no_worse(last)

    def is_no_worse(self, last: Result | None) -> bool:
        """Whether no objective of `val` is worse than `last`'s, if there is one."""
        if last is None or self.val is None:
            return True
        return all(
            value > before if higher_is_better(o.name, self.criterion) else value <= before
            for o, value, before in zip(self.objectives, self.val.objectives, last.objectives, strict=True)
        )
