"""A search's progress while it runs: told trials, best so far, time left."""

import threading
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from quantuner.api.journal import History, Launched, Selection, Trial, decode
from quantuner.api.selection import best as best_trial
from quantuner.api.spec import Tuning
from quantuner.cli.report import accuracy_text, loss_text
from quantuner.distributed.journal import JOURNAL_FILE, read_lines

REFRESH_SECONDS = 0.2


class Progress:
    """Follows a journal from a thread: a live bar on a terminal, a line a trial elsewhere."""

    def __init__(self, workspace: Path, tuning: Tuning, console: Console) -> None:
        self._journal, self._tuning, self._console = workspace / JOURNAL_FILE, tuning, console
        self._history = History()
        self._lines = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="progress")
        self._bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=tuning.tuning_criterion.max_trials)

    def __enter__(self) -> "Progress":
        self._bar.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._bar.stop()

    def _follow(self) -> None:
        while not self._stop.wait(REFRESH_SECONDS):
            self._read()
        self._read()

    def _read(self) -> None:
        for line in read_lines(self._journal)[self._lines :]:
            self._lines += 1
            record = decode(line)
            self._history.apply(record)
            if isinstance(record, Launched):
                self._console.print(f"{record.ranks} rank{'s' * (record.ranks > 1)}, {record.ops} quantizable ops")
            elif isinstance(record, Trial):
                self._told(record)

    def _told(self, trial: Trial) -> None:
        if not self._console.is_terminal:
            accuracy = accuracy_text(self._tuning, trial)
            self._console.print(f"trial {trial.index:4d}  {accuracy:>10s}  {trial.label}", soft_wrap=True, markup=False)
        self._bar.update(self._task, completed=len(self._history.tried), description=self._description())

    def _description(self) -> str:
        best = best_trial(self._tuning, self._history)
        if best is None or best.accuracy is None:
            return "baseline measured"
        loss = loss_text(self._tuning, self._history, best.accuracy)
        ends = best.meets and self._history.launches[-1].selection is Selection.FIRST
        left = "measuring its saved model" if ends else self._left()
        return f"best {best.accuracy:.4g} ({loss} lost, trial {best.index}) · {left}"

    def _left(self) -> str:
        """At most: the search ends earlier where a configuration meets the criterion."""
        last, told = self._history.trials[-1], len(self._history.tried)
        seconds = last.elapsed / told * max(0, self._tuning.tuning_criterion.max_trials - told)
        limit = self._tuning.tuning_criterion.timeout_seconds
        if limit:
            seconds = min(seconds, max(0.0, limit - last.elapsed))
        return f"at most {seconds / 60:.0f} min left" if seconds >= 120 else f"at most {seconds:.0f} s left"
