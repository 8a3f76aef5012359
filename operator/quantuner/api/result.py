"""The part of a resource's status that its journal alone determines, on a cluster and on a laptop."""

from collections.abc import Mapping
from typing import Any

from quantuner.api.conditions import ConditionType, Reason, condition
from quantuner.api.described import described
from quantuner.api.journal import Failed, Finished, History, Outcome
from quantuner.api.selection import best, pareto_front
from quantuner.api.spec import Tuning

OUTCOMES = {
    Outcome.TARGET_MET: "trial {best} meets the accuracy criterion",
    Outcome.EXHAUSTED: "the strategy has no further configuration",
    Outcome.MAX_TRIALS: "maxTrials is reached",
    Outcome.TIMEOUT: "timeoutSeconds is reached",
    Outcome.STOPPED: "the strategy's own stop rule ended the search",
}
PARETO_LIMIT = 16  # points in the status; the report beside the model has all


def search_status(
    tuning: Tuning, history: History, best_yaml: str | None, config_ref: Mapping[str, str]
) -> dict[str, Any]:
    """baseline, best, trials, startTime and completionTime.

    `best_yaml` is the text that the search keeps beside the journal: the full configuration of the best
    trial with its index and compact form. It may be older than the journal by a write; then it is not used.
    """
    status: dict[str, Any] = {"trials": _trials(tuning, history)}
    if history.launches:
        status["startTime"] = history.launches[0].time
    if history.end is not None and history.end.time:
        status["completionTime"] = history.end.time
    baseline = history.baseline
    if baseline is not None and baseline.accuracy is not None:
        status["baseline"] = {"accuracy": baseline.accuracy, "seconds": baseline.seconds}
    winner = best(tuning, history)
    if winner is not None:
        status["best"] = {
            "trial": winner.index,
            "accuracy": winner.accuracy,
            "meetsCriterion": winner.meets,
            "objectives": dict(winner.objectives),
            "cost": winner.cost,
            "size": winner.size,
        }
        status["pareto"] = [
            {"trial": t.index, "accuracy": t.accuracy, "cost": t.cost, "size": t.size}
            for t in pareto_front(history.trials, tuning.accuracy_criterion, PARETO_LIMIT)
        ]
        about = described(best_yaml or "")
        if about is not None and about.trial == winner.index:
            status["best"] |= {"config": about.summary, "configRef": dict(config_ref)}
        if isinstance(history.end, Finished) and history.end.artifact:
            status["best"]["artifact"] = history.end.artifact
    return status


def _trials(tuning: Tuning, history: History) -> dict[str, int]:
    failed = sum(1 for t in history.tried if t.accuracy is None)
    running = history.trials[-1].running if history.trials and history.end is None else 0
    return {
        "completed": len(history.tried) - failed,
        "failed": failed,
        "running": running,
        "max": tuning.tuning_criterion.max_trials,
    }


def end_conditions(tuning: Tuning, history: History, now: str) -> list[dict[str, Any]]:
    """TargetMet, Complete and Failed, as far as the journal determines them."""
    end, generation = history.end, tuning.generation
    if isinstance(end, Failed):
        return [
            condition(ConditionType.TARGET_MET, False, Reason.STOPPED, "the search failed", generation, now),
            condition(ConditionType.COMPLETE, False, Reason.STOPPED, "the search failed", generation, now),
            condition(ConditionType.FAILED, True, end.reason, end.message, generation, now),
        ]
    if isinstance(end, Finished):
        winner = best(tuning, history)
        met = winner is not None and winner.meets
        why = OUTCOMES[end.outcome].format(best=end.best)
        reason = Reason.TARGET_MET if met else Reason.TARGET_NOT_MET
        return [
            condition(ConditionType.TARGET_MET, met, reason, _accuracies(tuning, history), generation, now),
            condition(ConditionType.COMPLETE, True, reason, why, generation, now),
            condition(ConditionType.FAILED, False, Reason.NO_FAILURE, "", generation, now),
        ]
    return [
        condition(ConditionType.TARGET_MET, False, Reason.IN_PROGRESS, _accuracies(tuning, history), generation, now),
        condition(ConditionType.COMPLETE, False, Reason.IN_PROGRESS, "the search goes on", generation, now),
        condition(ConditionType.FAILED, False, Reason.NO_FAILURE, "", generation, now),
    ]


def _accuracies(tuning: Tuning, history: History) -> str:
    """`baseline 0.98, target 0.97, best 0.96 (trial 4)`."""
    baseline, criterion = history.baseline, tuning.accuracy_criterion
    if baseline is None or baseline.accuracy is None:
        return "no baseline yet"
    text = f"baseline {baseline.accuracy:.6g}, target {criterion.target(baseline.accuracy):.6g}"
    winner = best(tuning, history)
    return text if winner is None else f"{text}, best {winner.accuracy:.6g} (trial {winner.index})"
