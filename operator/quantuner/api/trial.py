"""What evaluating one configuration gives, before it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """A measurement, or why there is none. Crosses MPI, so it holds plain data only."""

    accuracy: float | None
    """None if and only if `error` says why."""
    is_bound: bool = False
    """Whether the trial was abandoned: the true accuracy is proven to be no better than `accuracy`."""
    bound: float | None = None
    """Of a trial that failed on the way: what its accuracy was proven to be no better than, by the batches before."""
    rows: tuple[int, ...] = ()
    """Rows that each built-in metric counted in a whole evaluation; of the baseline alone."""
    objectives: dict[str, float] = field(default_factory=dict)
    """Objective name to value; lower is better for each of them."""
    seconds: float = 0.0
    """Wall seconds of the whole trial."""
    error: str = ""
    traceback: str = ""
    """Of the error; for the log and for a search that fails of it, not for the journal's line."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """When a trial may be abandoned. Plain data at the edges, so that it crosses MPI."""

    accuracy: float | None
    """A trial that is proven to be worse is of no interest; None where every one is."""
    higher_is_better: bool
    rows: tuple[int, ...]
    """Rows that each metric counts in a whole evaluation."""

    def plain(self) -> dict[str, Any]:
        return {"accuracy": self.accuracy, "higher_is_better": self.higher_is_better, "rows": list(self.rows)}

    @classmethod
    def from_plain(cls, body: Mapping[str, Any]) -> Limit:
        return cls(**{**body, "rows": tuple(body["rows"])})

    def excludes(self, accuracy: float) -> bool:
        """Whether an accuracy, or a bound of it, is worse than the limit. Never of NaN."""
        if self.accuracy is None:
            return False
        return accuracy < self.accuracy if self.higher_is_better else accuracy > self.accuracy
