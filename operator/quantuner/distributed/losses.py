"""How many ranks each trial took with it, kept through relaunches: a deadly trial is not tried for ever."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantuner.api.names import LOSSES_KEY
from quantuner.api.trial import TrialResult
from quantuner.distributed.journal import replace_text

logger = logging.getLogger(__name__)

LOSSES_FILE = LOSSES_KEY
LOSSES = 2
"""Ranks that a trial may take with it; after the last it has failed."""
DOUBTFUL = 0.5
"""How much of one that was lost while a host did not answer counts. It may have been drained, and then the trial is
healthy; or its container was killed for the memory that the trial took, and then this must end, too."""


class Losses:
    """Trial to the ranks lost with it; in a folder's file, or for this launch only."""

    def __init__(self, folder: Path | None = None, *, anew: bool = False) -> None:
        """`anew` forgets what another search left in the folder."""
        self._path = None if folder is None else folder / LOSSES_FILE
        self._known: dict[int, float] = {}
        if anew and self._path is not None:
            self._path.unlink(missing_ok=True)
        if self._path is not None and self._path.exists():
            self._known = _read(self._path)

    @property
    def known(self) -> Mapping[int, float]:
        return dict(self._known)

    def failed(self, index: int) -> TrialResult | None:
        """What is recorded of a trial that took too many ranks with it in earlier launches; None of any other."""
        count = self._known.get(index, 0)
        return deadly(count, "was lost") if count >= LOSSES else None

    def record(self, index: int, count: float) -> None:
        """Keeps how many it were, 0 where it is not known of any.

        A disk that takes nothing more costs a rank later on, and not the search now.
        """
        self._known[index] = count
        if self._path is None:
            return
        try:
            replace_text(self._path, json.dumps(self._known))
        except OSError as error:
            logger.warning("that trial %d has lost %g ranks is not kept: %s", index, count, error)


def deadly(count: float, how: str) -> TrialResult:
    """The failure of a trial with which so many ranks were lost; `how` is said of the last one."""
    return TrialResult(
        accuracy=None,
        error=f"{count:g} ranks were lost with this trial, the last one {how}; look for an out-of-memory kill of its "
        "pod or for an evaluation that never ends",
    )


def _read(path: Path) -> dict[int, float]:
    """What the file says; nothing where it is damaged. That costs ranks again, where an error would end the search."""
    try:
        return _counts(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        logger.warning("%s is not read, and which trials took ranks with them is forgotten: %s", path, error)
        return {}


def _counts(read: Any) -> dict[int, float]:
    if not isinstance(read, dict):
        raise ValueError(f"it must hold an object of trials and numbers of ranks, not {read!r}")
    wrong = {index: count for index, count in read.items() if not _is_count(count)}
    if wrong:
        raise ValueError(f"a trial has lost 0 ranks or more, some of them counted half, not {wrong}")
    return {int(index): count for index, count in read.items()}


def _is_count(read: Any) -> bool:
    return type(read) in (int, float) and read >= 0 and read % DOUBTFUL == 0
