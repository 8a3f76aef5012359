"""Where `fit` keeps a search: its journal, its timeline and what was asked for, as `quantuner run` does."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from quantuner.api.conditions import Failure
from quantuner.api.errors import JournalError, SearchError
from quantuner.api.journal import Finished, History, Launched, Record
from quantuner.api.timestamps import utc_now
from quantuner.config import body_of
from quantuner.distributed.answered import Answered
from quantuner.distributed.journal import JOURNAL_FILE, JournalFolder, read_lines, replace_text
from quantuner.distributed.losses import Losses
from quantuner.distributed.timeline import Timeline
from quantuner.options import options
from quantuner.strategy import TuneStrategy
from quantuner.strategy.recording import kept_in

TUNING_FILE = "tuning.yaml"


class GoingOn:
    """Records a search in a folder, also one that has finished there and may have more to tell: of more trials, say.

    A finished journal takes no further record. It is left as it is where the search ends as it did before; as soon as
    anything else is told, one without its end takes its place.
    """

    def __init__(self, journal: JournalFolder, accepted: Callable[[], None]) -> None:
        """`accepted` is called where the journal takes a launch: what is asked for is the search that it holds."""
        self._journal, self._accepted = journal, accepted
        self._launches: list[Launched] = []
        self._end = journal.history.end if isinstance(journal.history.end, Finished) else None
        known = journal.history
        self.history = History([*known.launches], [*known.trials]) if self._end is not None else known

    def append(self, record: Record) -> None:
        if self._end is None:
            self._tell(record)
        elif isinstance(record, Launched) or _is_as_before(record, self._end):
            self.history.apply(record)
            self._launches += [record] if isinstance(record, Launched) else []
        else:
            self._journal.reopen()
            self._end = None
            for one in (*self._launches, record):
                self._tell(one)
        if isinstance(record, Launched):
            self._accepted()

    def _tell(self, record: Record) -> None:
        try:
            self._journal.append(record)
        finally:
            self.history = self._journal.history

    def describe_best(self, description: Mapping[str, Any]) -> None:
        self._journal.describe_best(description)


def _is_as_before(record: Record, end: Finished) -> bool:
    return isinstance(record, Finished) and dataclasses.replace(record, time=end.time) == end


@dataclasses.dataclass(frozen=True)
class Kept:
    """The record of a search, of rank 0."""

    strategy: TuneStrategy
    journal: JournalFolder
    timeline: Timeline

    def close(self) -> None:
        self.timeline.hosts(self.strategy.identity.hosts)
        self.timeline.close()
        self.journal.close()


def kept(strategy: TuneStrategy, ranks: int) -> Kept:
    """Has the search recorded in the workspace, after what is known of it there and elsewhere.

    What another search has left there is not changed before that search is known to be this one.
    """
    tuning = yaml.safe_dump(body_of(strategy.tuning), sort_keys=False)
    try:
        strategy.setup_resume(options().resume_from)
        workspace = options().workspace or _new_folder()
        anew = not read_lines(workspace / JOURNAL_FILE)
        journal = kept_in(workspace, strategy.recorder.history)
    except JournalError as error:
        raise SearchError(Failure.JOURNAL_MISMATCH, str(error)) from error
    strategy.folder = workspace / "model"
    strategy.keep_ranges(workspace)
    strategy.losses, strategy.answered = Losses(workspace, anew=anew), Answered(workspace, anew=anew)
    timeline = strategy.observer = Timeline(workspace, ranks, anew=anew, held=True)

    def accepted() -> None:
        _write(workspace / TUNING_FILE, tuning)
        timeline.begin()

    strategy.recorder = GoingOn(journal, accepted)
    return Kept(strategy, journal, timeline)


def _write(path: Path, text: str) -> None:
    try:
        replace_text(path, text)
    except OSError as error:
        raise SearchError(Failure.WRITE_FAILED, f"{path} cannot be written: {error.strerror}") from error


def _new_folder() -> Path:
    """One named by the time; searches of the same second are numbered."""
    first = Path("quantuner_workspace") / utc_now().replace(":", "")
    numbered = (first.with_name(f"{first.name}-{number}") for number in itertools.count(2))
    return next(folder for folder in itertools.chain([first], numbered) if not folder.exists())
