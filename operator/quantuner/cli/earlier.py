"""What an earlier `quantuner run` left in the workspace: gone on with, finished already, or put aside."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from quantuner.api.errors import QuantunerError
from quantuner.api.journal import Finished, History, Outcome, Selection
from quantuner.api.spec import Tuning, search_digest
from quantuner.cli.report import MODEL_FOLDER, STATUS_FILE, TUNING_FILE, WEIGHTS_FILE
from quantuner.distributed.journal import (
    BEST_FILE,
    JOURNAL_FILE,
    JournalFolder,
    read_history,
    read_lines,
    replace_text,
)
from quantuner.distributed.timeline import TIMELINE_FILE

OF_A_SEARCH = (MODEL_FOLDER, BEST_FILE, STATUS_FILE, TUNING_FILE, TIMELINE_FILE, JOURNAL_FILE)
"""What is put aside together; the journal last, since without one nobody would know that the rest is another's."""


OF_A_MODEL = ("model.pt2", WEIGHTS_FILE)
"""One of these is in a model's folder."""


class State(StrEnum):
    """What the workspace holds."""

    OPEN = "open"  # nothing, or a part of this search
    FINISHED = "finished"  # this search, which has nothing more to tell
    GROWN = "grown"  # this search, finished, which has more to tell now
    ANOTHER = "another"  # another search, or one that is not wanted


def prepare(workspace: Path, body: dict[str, Any], code: Path, console: Console, *, fresh: bool) -> bool:
    """Makes the workspace this search's own; False where the search has finished there, and has nothing more to tell.

    A journal of this very search is continued, a failed one too, and a finished one where its limits have grown. Any
    other is kept under a new name, with its model, as is a finished one that began before a change below `code`.
    """
    journal = workspace / JOURNAL_FILE
    history = History() if fresh else read_history(journal)  # a damaged one is no reason not to start anew
    state = _state(workspace, body, history, fresh=fresh)
    changed = _changed(code, history) if state is State.FINISHED else None
    if changed is not None:
        _say(console, f"{changed} has changed since the earlier search began: this is another one")
        state = State.ANOTHER
    if state is State.FINISHED:
        _say(
            console,
            f"this search has finished, and its result follows ({journal}); --fresh searches anew, as after a change "
            "of the task's data, which is not looked for",
        )
        return False
    if state is State.ANOTHER:
        _put_aside(workspace, console)
    elif history.launches:
        _say(console, f"going on after {len(history.tried)} told trials of {journal}")
    if state is State.GROWN:
        with contextlib.closing(JournalFolder(workspace)) as known:
            known.reopen()
    keep(workspace / TUNING_FILE, body)
    return True


def keep(path: Path, body: Mapping[str, Any]) -> None:
    """Raises `QuantunerError` where it cannot be written."""
    try:
        replace_text(path, yaml.safe_dump(body, sort_keys=False))
    except OSError as error:
        raise QuantunerError(
            f"{path} cannot be written: {error.strerror}; give its disk room, or this user the right to it, and run "
            "this again"
        ) from error


def _state(workspace: Path, body: Mapping[str, Any], history: History, *, fresh: bool) -> State:
    has_model = (workspace / MODEL_FOLDER).is_dir()
    if has_model and not any((workspace / MODEL_FOLDER / name).exists() for name in OF_A_MODEL):
        raise QuantunerError(
            f"{workspace / MODEL_FOLDER} is where the search's model goes, and holds something else; name another "
            "--workspace, or move that away"
        )
    if not read_lines(workspace / JOURNAL_FILE):
        return State.ANOTHER if has_model else State.OPEN  # somebody has moved the journal away, and the model not
    if fresh or not history.launches or history.launches[0].search != search_digest(body):
        return State.ANOTHER
    if not isinstance(history.end, Finished):
        return State.OPEN
    if history.end.best is not None and not has_model:  # somebody has deleted it: it is made again
        return State.GROWN
    same = _limits(workspace / TUNING_FILE) == body["spec"]["tuningCriterion"]
    return State.GROWN if not same and has_more(Tuning.from_body(body), history) else State.FINISHED


def _changed(code: Path, history: History) -> Path | None:
    """A module of the task's that was written after the search began, which had read it by then."""
    try:
        began = datetime.fromisoformat(history.launches[-1].time).timestamp()
    except ValueError:  # whoever wrote that
        return None
    later = (path for path in _modules(code) if path.stat().st_mtime >= began + 1)  # a record's time has whole seconds
    return next(later, None)


def _modules(code: Path) -> Iterator[Path]:
    """Of the folder, and of those below that have modules: it may be anybody's home, and is not searched whole."""
    for entry in sorted(code.iterdir()):
        if entry.suffix == ".py" and entry.is_file():
            yield entry
        elif _is_package(entry):
            yield from _modules(entry)


def _is_package(entry: Path) -> bool:
    is_own = entry.is_dir() and not entry.is_symlink() and not entry.name.startswith((".", "__"))
    return is_own and any(entry.glob("*.py"))


def _limits(path: Path) -> object:
    """What the earlier search was limited by; None where nobody knows any more."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]["tuningCriterion"]
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError):
        return None


def has_more(tuning: Tuning, history: History) -> bool:
    """Whether a finished search goes on under these limits: more trials, more time, or time for better objectives."""
    limits, outcome = tuning.tuning_criterion, history.end.outcome if isinstance(history.end, Finished) else None
    elapsed = history.trials[-1].elapsed if history.trials else 0.0
    in_time = not limits.timeout_seconds or elapsed < limits.timeout_seconds
    has_room = in_time and len(history.tried) < limits.max_trials
    if outcome is Outcome.TARGET_MET:
        return has_room and limits.timeout_seconds > 0 and history.launches[-1].selection is not Selection.OBJECTIVES
    return has_room and outcome in (Outcome.MAX_TRIALS, Outcome.TIMEOUT)


def _put_aside(workspace: Path, console: Console) -> None:
    """Under the first number that is free for all of it."""
    number = next(n for n in itertools.count(1) if not any((workspace / _numbered(f, n)).exists() for f in OF_A_SEARCH))
    found = [name for name in OF_A_SEARCH if (workspace / name).exists()]
    for name in found:
        (workspace / name).rename(workspace / _numbered(name, number))
    kept = ", ".join(_numbered(name, number) for name in reversed(found))
    _say(console, f"the earlier search is kept in {workspace} as {kept}")


def _numbered(name: str, number: int) -> str:
    """`journal.1.jsonl` of `journal.jsonl`, and `model.1` of a folder."""
    stem, dot, suffix = name.partition(".")
    return f"{stem}.{number}{dot}{suffix}"


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, markup=False)
