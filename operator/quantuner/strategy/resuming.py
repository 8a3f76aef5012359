"""Reads the history that a search continues from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantuner.api.errors import JournalError
from quantuner.api.journal import History
from quantuner.distributed.journal import JOURNAL_FILE, read_history
from quantuner.engine.ranges import RANGES_FILE


def history_from(resume: History | Mapping[str, Any] | str | Path) -> History:
    """The history that `resume` holds or names: itself, a journal, a workspace, or `{"history": any of these}`.

    Raises `JournalError` for a file that is missing or damaged, `TypeError` for anything else.
    """
    if isinstance(resume, History):
        return resume
    if isinstance(resume, Mapping):
        if set(resume) != {"history"}:
            raise TypeError(f"resume as a dict has the one key 'history', not {', '.join(map(repr, resume)) or 'none'}")
        return history_from(resume["history"])
    if not isinstance(resume, (str, Path)):
        raise TypeError(
            f"resume must be a History, a path or {{'history': either}}, not {type(resume).__name__}; "
            "give the workspace of an earlier search"
        )
    journal = _journal(resume)
    if not journal.is_file():
        raise JournalError(f"{journal} does not exist; resume names a journal or the workspace that holds one")
    return read_history(journal)


def ranges_beside(resume: History | Mapping[str, Any] | str | Path) -> tuple[Path, ...]:
    """The file in which the search that `resume` names keeps its calibrated ranges; none of a History in memory."""
    if isinstance(resume, Mapping):
        return ranges_beside(resume["history"])
    return () if isinstance(resume, History) else (_journal(resume).with_name(RANGES_FILE),)


def _journal(resume: str | Path) -> Path:
    path = Path(resume)
    return path / JOURNAL_FILE if path.is_dir() else path
