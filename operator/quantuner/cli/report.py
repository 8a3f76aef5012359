"""A search for people: the table of its trials, its winner, and the status that a cluster would show."""

from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from quantuner.api.conditions import ConditionType, Reason, condition, phase_of
from quantuner.api.errors import QuantunerError
from quantuner.api.journal import Finished, History, Trial
from quantuner.api.names import BEST_KEY
from quantuner.api.result import OUTCOMES, end_conditions, search_status
from quantuner.api.selection import best as best_trial
from quantuner.api.spec import Tuning
from quantuner.api.timestamps import utc_now
from quantuner.api.validation import admit
from quantuner.distributed.journal import BEST_FILE, JOURNAL_FILE, read_history

TUNING_FILE, STATUS_FILE = "tuning.yaml", "status.yaml"


def show(workspace: Path, console: Console) -> int:
    """Prints the trials and the outcome of a workspace; 1 for a failed search."""
    if not (workspace / TUNING_FILE).is_file():
        raise QuantunerError(f"{workspace} holds no {TUNING_FILE}; name the workspace of a `quantuner run`")
    body = admit(yaml.safe_load((workspace / TUNING_FILE).read_text(encoding="utf-8")))
    history = read_history(workspace / JOURNAL_FILE)
    tuning = Tuning.from_body(body)
    console.print(trials_table(tuning, history))
    console.print(outcome_text(tuning, history), soft_wrap=True)
    return 1 if history.end is not None and not isinstance(history.end, Finished) else 0


def status_of(workspace: Path, body: dict[str, Any]) -> dict[str, Any]:
    """The resource's status as the operator would write it at the end, its configRef naming the local file."""
    tuning, history = Tuning.from_body(body), read_history(workspace / JOURNAL_FILE)
    now = utc_now()
    best = workspace / BEST_FILE
    best_yaml = best.read_text(encoding="utf-8") if best.exists() else None
    status = search_status(tuning, history, best_yaml, {"name": str(best), "key": BEST_KEY})
    conditions = [
        condition(ConditionType.ACCEPTED, True, Reason.ACCEPTED, "the resource is valid", tuning.generation, now),
        condition(ConditionType.RUNNING, False, Reason.FINISHED, "no rank runs", tuning.generation, now),
        condition(ConditionType.SUSPENDED, False, Reason.NOT_SUSPENDED, "", tuning.generation, now),
        *end_conditions(tuning, history, now),
    ]
    status["trials"]["running"] = 0
    ranks = history.launches[-1].ranks if history.launches else 1
    workers = max(0, ranks - tuning.launcher_slots) // tuning.slots_per_worker
    shown = {"observedGeneration": tuning.generation, "phase": phase_of(conditions), "workers": workers}
    return {**shown, **status, "conditions": conditions}


def trials_table(tuning: Tuning, history: History) -> Table:
    table = Table(title=f"{tuning.name}: {tuning.strategy}", title_justify="left")
    table.add_column("trial", justify="right")
    table.add_column("configuration", overflow="fold")
    table.add_column("accuracy", justify="right")
    table.add_column("loss", justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("rank", justify="right")
    table.add_column("")
    best = best_trial(tuning, history)
    for trial in history.trials:
        table.add_row(*_row(tuning, history, trial), "◀ best" if trial is best else "", style=_style(trial, best))
    return table


def _row(tuning: Tuning, history: History, trial: Trial) -> list[str]:
    if trial.accuracy is None:
        return [
            str(trial.index),
            escape(f"{trial.label}: {trial.error}"),
            "failed",
            "",
            f"{trial.seconds:.2f}",
            str(trial.rank),
        ]
    loss = "" if trial.index == 0 else loss_text(tuning, history, trial.accuracy)
    return [
        str(trial.index),
        escape(trial.label),
        f"{trial.accuracy:.6g}",
        loss,
        f"{trial.seconds:.2f}",
        str(trial.rank),
    ]


def _style(trial: Trial, best: Trial | None) -> str:
    if trial.accuracy is None:
        return "red"
    if trial is best:
        return "bold green" if trial.meets else "bold yellow"
    return "dim" if trial.index == 0 else ""


def loss_text(tuning: Tuning, history: History, accuracy: float) -> str:
    """How much accuracy is lost, in the criterion's own terms; a gain has a minus sign."""
    baseline = history.baseline.accuracy if history.baseline else None
    if baseline is None:
        return ""
    lost = baseline - accuracy if tuning.accuracy_criterion.higher_is_better else accuracy - baseline
    if tuning.accuracy_criterion.criterion == "relative" and baseline:
        return f"{lost / abs(baseline):.2%}"
    return f"{lost:.4g}"


def outcome_text(tuning: Tuning, history: History) -> str:
    end = history.end
    if end is None:
        return f"not finished: {len(history.tried)} trials told; `quantuner run` goes on from here"
    if not isinstance(end, Finished):
        return f"[red]failed[/red] {escape(f'{end.reason}: {end.message}')}"
    best = best_trial(tuning, history)
    why = OUTCOMES[end.outcome].format(best=end.best)
    if best is None or end.accuracy is None:
        return why
    verdict = "[green]target met[/green]" if best.meets else "[yellow]target not met[/yellow]"
    return (
        f"{verdict}: {why}; its saved model was loaded again and has accuracy {end.accuracy:.6g} "
        f"({loss_text(tuning, history, end.accuracy)} lost)\nmodel: {escape(end.artifact)}"
    )
