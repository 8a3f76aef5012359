"""Which trial wins, and which trials nobody beats. Pure: the same for the search, the operator and a report."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

from quantuner.api.journal import Finished, History, Selection, Trial
from quantuner.api.spec import AccuracyCriterion, Objective, Tuning


def _is_told(history: History, best: int | None) -> bool:
    """Whether a finished search can have ended so: anybody may have written its line."""
    return best is None or (0 < best < len(history.trials) and history.trials[best].accuracy is not None)


def best(tuning: Tuning, history: History) -> Trial | None:
    """The winner so far; where none meets the criterion the most accurate trial, the earlier at a tie.

    A search that has finished says which it is; before, the rule is the one that the last launch recorded.
    """
    if isinstance(history.end, Finished) and _is_told(history, history.end.best):
        return None if history.end.best is None else history.trials[history.end.best]
    selection = history.launches[-1].selection if history.launches else Selection.FIRST
    return choose(history.trials, selection, tuning.tuning_criterion.objectives, tuning.accuracy_criterion)


def choose(
    trials: Sequence[Trial], selection: Selection, objectives: Sequence[Objective], criterion: AccuracyCriterion
) -> Trial | None:
    """The winner of `trials`, whose first is the baseline."""
    complete = [t for t in trials[1:] if t.accuracy is not None]
    meeting = [t for t in complete if t.meets]
    if not meeting:
        return _most_accurate(complete, criterion)
    if selection is Selection.CHEAPEST:
        return min(meeting, key=lambda t: (t.cost, t.index))
    if selection is Selection.OBJECTIVES:
        if len(objectives) > 1:
            measured = [t for t in complete if not t.bound]  # abandoned before the time limit was set
            return best_result(measured, objectives, criterion)
        return _never_worse(meeting, objectives, criterion)
    return meeting[0]


def _most_accurate(trials: Sequence[Trial], criterion: AccuracyCriterion) -> Trial | None:
    sign = -1.0 if criterion.higher_is_better else 1.0
    return min(trials, key=lambda t: (sign * (t.accuracy or 0.0), t.index), default=None)


def higher_is_better(objective: str, criterion: AccuracyCriterion) -> bool:
    """Direction of an objective's values: seconds and bytes are better low, accuracy as its criterion says."""
    return objective == "accuracy" and criterion.higher_is_better


def no_worse(
    values: Mapping[str, float],
    than: Mapping[str, float],
    objectives: Sequence[Objective],
    criterion: AccuracyCriterion,
) -> bool:
    """Whether every objective is at most `than`'s, or above it where higher is better.

    Source: Neural Compressor 2.x, Objective.compare, with its asymmetry: equal values pass only where lower is better.
    """
    return all(
        values[o.name] > than[o.name] if higher_is_better(o.name, criterion) else values[o.name] <= than[o.name]
        for o in objectives
    )


def _never_worse(meeting: Sequence[Trial], objectives: Sequence[Objective], criterion: AccuracyCriterion) -> Trial:
    found = meeting[0]
    for trial in meeting[1:]:
        if no_worse(trial.objectives, found.objectives, objectives, criterion):
            found = trial
    return found


def best_result(complete: Sequence[Trial], objectives: Sequence[Objective], criterion: AccuracyCriterion) -> Trial:
    """The trial with the highest weighted score among those that meet the criterion; the first at a tie.

    Each objective is a column, scaled to [0, 1] over all complete trials, 1 for the best. Source: Neural Compressor
    2.x, MultiObjective.best_result; there a trial that misses the criterion scores 0 and may win over one that meets
    it, here it is left out.
    """
    columns = [_column([t.objectives[o.name] for t in complete], o.name, criterion) for o in objectives]
    weights = [o.weight for o in objectives]
    scores = [sum(w * x for w, x in zip(weights, row, strict=True)) for row in zip(*columns, strict=True)]
    return max(
        (trial for trial in zip(scores, complete, strict=True) if trial[1].meets), key=lambda s: (s[0], -s[1].index)
    )[1]


def _column(values: Sequence[float], name: str, criterion: AccuracyCriterion) -> list[float]:
    """The values of one objective, scaled to [0, 1], 1 for the best.

    Seconds and bytes go by their inverse, as in Neural Compressor. There a relative accuracy does too, which turns the
    order of negative ones round and lets a single 0 outweigh every other difference; here accuracies keep theirs.
    """
    if name != "accuracy" and min(values) > 0:  # one so small that it was rounded to 0 has no inverse
        least = min(values)
        return _scaled([least / v for v in values])
    return _scaled([v if higher_is_better(name, criterion) else -v for v in values])


def _scaled(values: Sequence[float]) -> list[float]:
    low, high = min(values) / 2, max(values) / 2  # of halves: the span of two huge ones is infinite
    return [(v / 2 - low) / (high - low) if high > low else 1.0 for v in values]


def pareto_front(trials: Sequence[Trial], criterion: AccuracyCriterion, limit: int | None = None) -> list[Trial]:
    """Trials, the baseline among them, that no other one beats in accuracy, modelled latency and modelled size.

    Cheapest first; of equal trials the earliest. Abandoned ones have no accuracy to compare. `limit` keeps that many,
    spread evenly, both ends included.
    """
    sign = 1.0 if criterion.higher_is_better else -1.0
    points = [((t.cost, t.size, -sign * t.accuracy), t) for t in trials if t.accuracy is not None and not t.bound]
    stairs = _Stairs()
    ordered = sorted(points, key=lambda point: (point[0], point[1].index))
    front = sorted((t for (_, *low), t in ordered if stairs.add(*low)), key=lambda t: (t.cost, t.index))
    if limit is None or len(front) <= limit:
        return front
    return [front[round(i * (len(front) - 1) / (limit - 1))] for i in range(limit)]


class _Stairs:
    """Sizes and losses of which none is as low as another in both: sizes rise, losses fall.

    Trials come in the order of their cost, so that one is beaten if and only if one of these is as low in both. A look
    at the status takes n log n steps, where comparing each with each took seconds for 2,000 trials. Source: Kung,
    Luccio, Preparata 1975, "On finding the maxima of a set of vectors", section 3.
    """

    def __init__(self) -> None:
        self._sizes: list[float] = []
        self._losses: list[float] = []

    def add(self, size: float, loss: float) -> bool:
        """Whether nothing so far is as low in both."""
        after = bisect_right(self._sizes, size)
        if after and self._losses[after - 1] <= loss:
            return False
        first = last = bisect_left(self._sizes, size)
        while last < len(self._losses) and self._losses[last] >= loss:
            last += 1
        self._sizes[first:last], self._losses[first:last] = [size], [loss]
        return True
