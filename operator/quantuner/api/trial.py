"""What evaluating one configuration gives, before it is told."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """A measurement, or why there is none. Crosses MPI, so it holds plain data only."""

    accuracy: float | None
    """None if and only if `error` says why."""
    objectives: dict[str, float] = field(default_factory=dict)
    """Objective name to value; lower is better for each of them."""
    seconds: float = 0.0
    """Wall seconds of the whole trial."""
    error: str = ""
    traceback: str = ""
    """Of the error; for the log and for a search that fails of it, not for the journal's line."""
