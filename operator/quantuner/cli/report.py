"""A search for people: the table of its trials, its winner, and the status that a cluster would show."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from quantuner.api.conditions import ConditionType, Reason, condition, phase_of
from quantuner.api.derived import derived
from quantuner.api.described import described
from quantuner.api.errors import QuantunerError
from quantuner.api.journal import Finished, History, Trial
from quantuner.api.names import BEST_KEY
from quantuner.api.result import OUTCOMES, end_conditions, search_status
from quantuner.api.selection import best as best_trial
from quantuner.api.spec import Tuning
from quantuner.api.timeline import LaunchSpans, read
from quantuner.api.timestamps import utc_now
from quantuner.api.trace import chrome_trace
from quantuner.api.validation import admit
from quantuner.cli.svg import picture
from quantuner.cli.timeline import draw
from quantuner.distributed.journal import BEST_FILE, JOURNAL_FILE, read_history, read_lines, read_records
from quantuner.distributed.timeline import TIMELINE_FILE

TUNING_FILE, STATUS_FILE = "tuning.yaml", "status.yaml"
MODEL_FOLDER = "model"
WEIGHTS_FILE = "weights.pt"  # in a model's folder: it could not be captured as a program
INTERRUPTED = "Interrupted"
"""Phase and reason of a search that no rank goes on with; a cluster, where ranks come back, has none such."""


def show(workspace: Path, console: Console, *, trace: Path | None = None, svg: Path | None = None) -> int:
    """Prints the trials, the outcome and the timeline of a workspace; 1 for a failed search.

    `trace` and `svg` name files for the timeline. A folder with nothing but a timeline, as a cluster leaves it
    beside the model, gives that.
    """
    if workspace.exists() and not workspace.is_dir():
        raise QuantunerError(f"{workspace} is no folder; name the workspace of a `quantuner run`")
    run = recorded(workspace)
    _export(run, trace, svg)
    if not (workspace / TUNING_FILE).is_file() and run.launches:
        draw(run.launches, console, derived=run.derived)
        return 0
    if not (workspace / TUNING_FILE).is_file():
        raise QuantunerError(
            f"{workspace} holds no {TUNING_FILE} and no {TIMELINE_FILE}; name the workspace of a `quantuner run`"
        )
    with (workspace / TUNING_FILE).open(encoding="utf-8") as file:
        body = admit(yaml.safe_load(file))
    history = read_history(workspace / JOURNAL_FILE)
    tuning = Tuning.from_body(body)
    console.print(trials_table(tuning, history))
    console.print(outcome_text(tuning, history, workspace), soft_wrap=True)
    if history.launches and history.launches[-1].left_out:
        console.print(f"left out of the search: {escape(history.launches[-1].left_out)}", soft_wrap=True)
    if run.launches:
        console.print()
        draw(run.launches, console, derived=run.derived)
    return 1 if history.end is not None and not isinstance(history.end, Finished) else 0


@dataclass(frozen=True)
class Run:
    """What ranks did in a search."""

    name: str
    launches: list[LaunchSpans]
    derived: bool
    """From the journal, for want of a timeline."""


def recorded(workspace: Path) -> Run:
    """The timeline of a workspace; without any launch where nothing is known. Raises `JournalError` with its path."""
    launches = read(read_lines(workspace / TIMELINE_FILE))
    if any(launch.spans for launch in launches):
        return Run(workspace.resolve().name, launches, derived=False)
    return Run(workspace.resolve().name, derived(read_records(workspace / JOURNAL_FILE)), derived=True)


def _export(run: Run, trace: Path | None, svg: Path | None) -> None:
    if (trace or svg) and not any(launch.spans for launch in run.launches):
        raise QuantunerError("nothing is recorded of this search yet, so there is no timeline to export")
    if trace is not None:
        body = chrome_trace(run.launches, run.name, derived=run.derived)
        trace.write_text(json.dumps(body, separators=(",", ":")) + "\n", encoding="utf-8")
    if svg is not None:
        svg.write_text(picture(run.launches, run.name), encoding="utf-8")


def status_of(workspace: Path, body: dict[str, Any]) -> dict[str, Any]:
    """The resource's status as the operator would write it at the end, its configRef naming the local file.

    Of a search that was interrupted, which an operator would go on with, it says so.
    """
    tuning, history = Tuning.from_body(body), read_history(workspace / JOURNAL_FILE)
    now = history.end.time if history.end is not None and history.end.time else utc_now()
    best = workspace / BEST_FILE
    status = search_status(tuning, history, _text(best), {"name": str(best), "key": BEST_KEY})
    conditions = _conditions(tuning, history, now)
    status["trials"]["running"] = 0
    phase = phase_of(conditions) if history.end is not None else INTERRUPTED
    shown = {"observedGeneration": tuning.generation, "phase": phase, "workers": _workers(tuning, history)}
    return {**shown, **status, "conditions": conditions}


def _conditions(tuning: Tuning, history: History, now: str) -> list[dict[str, Any]]:
    ended, generation = history.end is not None, tuning.generation
    reason, why = (Reason.FINISHED, "no rank runs") if ended else (INTERRUPTED, "interrupted: no rank runs")
    end = end_conditions(tuning, history, now)
    goes_on = {"reason": INTERRUPTED, "message": "interrupted; `quantuner run` goes on with the search"}
    return [
        condition(ConditionType.ACCEPTED, True, Reason.ACCEPTED, "the resource is valid", generation, now),
        condition(ConditionType.RUNNING, False, reason, why, generation, now),
        condition(ConditionType.SUSPENDED, False, Reason.NOT_SUSPENDED, "", generation, now),
        *({**c, **goes_on} if not ended and c["type"] == ConditionType.COMPLETE else c for c in end),
    ]


def _workers(tuning: Tuning, history: History) -> int:
    """Of the last launch; 0 where it was interrupted."""
    ranks = history.launches[-1].ranks if history.launches and history.end is not None else 1
    return max(0, ranks - tuning.launcher_slots) // tuning.slots_per_worker


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


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
    loss = "" if trial.index == 0 or trial.bound else loss_text(tuning, history, trial.accuracy)
    return [
        str(trial.index),
        escape(trial.label),
        accuracy_text(tuning, trial),
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


def accuracy_text(tuning: Tuning, trial: Trial) -> str:
    """`0.93`; of an abandoned trial `≤ 0.93`, since that is all that was proven; `failed` of one that has none."""
    if trial.accuracy is None:
        return "failed"
    sign = "≤ " if tuning.accuracy_criterion.higher_is_better else "≥ "
    return f"{sign if trial.bound else ''}{trial.accuracy:.6g}"


def loss_text(tuning: Tuning, history: History, accuracy: float) -> str:
    """How much accuracy is lost, in the criterion's own terms; a gain has a minus sign."""
    baseline = history.baseline.accuracy if history.baseline else None
    if baseline is None:
        return ""
    lost = baseline - accuracy if tuning.accuracy_criterion.higher_is_better else accuracy - baseline
    if tuning.accuracy_criterion.criterion == "relative" and baseline:
        return f"{lost / abs(baseline):.2%}"
    return f"{lost:.4g}"


def outcome_text(tuning: Tuning, history: History, workspace: Path) -> str:
    end = history.end
    if end is None:
        return f"not finished: {len(history.tried)} trials told; `quantuner run` goes on from here"
    if not isinstance(end, Finished):
        return f"[red]failed[/red] {escape(f'{end.reason}: {end.message}')}"
    best = best_trial(tuning, history)
    why = OUTCOMES[end.outcome].format(best=end.best)
    if best is None or end.accuracy is None:
        return why
    lines = [
        f"{_verdict(best, workspace)}: {why}; its saved model was loaded again and has accuracy {end.accuracy:.6g} "
        f"({loss_text(tuning, history, end.accuracy)} lost)",
        f"model: {escape(end.artifact)}",
    ]
    if (workspace / MODEL_FOLDER / WEIGHTS_FILE).is_file():
        lines.append(
            "the model could not be captured as a program, so that its weights alone are kept: "
            "`quantuner.load` needs your fp32 module beside the folder (README.md in it says how)"
        )
    return "\n".join(lines)


def _verdict(best: Trial, workspace: Path) -> str:
    if not best.meets:
        return "[yellow]target not met[/yellow]"
    if not _is_fp32(best, workspace):
        return "[green]target met[/green]"
    return "[yellow]target met by the fp32 model itself, nothing is quantized[/yellow]"


def _is_fp32(best: Trial, workspace: Path) -> bool:
    """Whether every op of the best trial computes as it did before."""
    about = described(_text(workspace / BEST_FILE) or "")
    if about is None or about.trial != best.index:
        return False
    return {form for part in about.summary.values() for form in part.values()} == {"fp32"}
