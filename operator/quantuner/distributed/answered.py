"""Results that were answered before earlier ones: kept until they are told, so that a relaunch measures none again."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from quantuner.api.names import ANSWERED_KEY
from quantuner.api.trial import TrialResult
from quantuner.distributed.journal import replace_text

logger = logging.getLogger(__name__)

ANSWERED_FILE = ANSWERED_KEY
LEAST_SECONDS = 1.0
"""A quicker trial is measured again: to keep it might cost as much."""
LIMIT_BYTES = 128 * 1024
"""Of the file, which shares a ConfigMap of 1 MiB with the best configuration. About 400 results."""
TRACEBACK_LIMIT = 1000

Result = tuple[TrialResult, int]
"""A result and the rank that gave it."""


class Answered:
    """Trial to its result, in a folder's file or in memory only.

    Used for the same trial of the same search alone: index, digest of the configuration, and the search's identity must
    be those with which it was kept.
    """

    def __init__(self, folder: Path | None = None, *, anew: bool = False) -> None:
        """`anew` forgets what another search left in the folder."""
        self._path = None if folder is None else folder / ANSWERED_FILE
        self._search = ""
        self._digests: Mapping[int, str] = {}
        self._kept: dict[int, dict[str, Any]] = {}
        if anew and self._path is not None:
            self._path.unlink(missing_ok=True)

    def begin(self, search: str) -> None:
        """Reads what an earlier launch of the same search kept; `search` is a digest of all that decides results."""
        self._search = search
        self._kept = _read(self._path, search) if self._path is not None and self._path.exists() else {}

    def expect(self, digests: Mapping[int, str]) -> None:
        """Names the configurations that are to be measured, by their digests; results of others are not kept."""
        self._digests = digests

    def known(self, indices: Iterable[int]) -> dict[int, Result]:
        """Those of these trials that an earlier launch has measured."""
        if not self._kept:
            return {}
        found = ((index, self._kept.get(index)) for index in indices)
        return {i: (TrialResult(**k["result"]), k["rank"]) for i, k in found if k and k["digest"] == self._digests[i]}

    def keep(self, waiting: Mapping[int, Result], told: int) -> None:
        """Keeps results that wait for others; those before trial `told` are in the journal.

        A disk that takes nothing more, or a file that is full, costs measurements later on, and not the search now.
        """
        worth = {index: one for index, one in waiting.items() if index in self._digests and _is_worth(one[0])}
        if not worth:
            return
        self._kept = {index: kept for index, kept in self._kept.items() if index >= told}
        self._kept |= {index: self._plain(index, *one) for index, one in worth.items()}
        if self._path is None:
            return
        try:
            replace_text(self._path, _spelled(self._search, self._kept))
        except OSError as error:
            logger.warning("results that wait for earlier ones are not kept: %s", error)

    def _plain(self, index: int, result: TrialResult, rank: int) -> dict[str, Any]:
        body = dataclasses.asdict(dataclasses.replace(result, traceback=result.traceback[-TRACEBACK_LIMIT:]))
        return {"digest": self._digests[index], "rank": rank, "result": body}


def _is_worth(result: TrialResult) -> bool:
    """A failure is kept whatever it took: it may have taken ranks with it."""
    return result.accuracy is None or result.seconds >= LEAST_SECONDS


def _spelled(search: str, kept: Mapping[int, Mapping[str, Any]]) -> str:
    """The lowest trials that fit: they are told first."""
    lines: list[str] = []
    room = LIMIT_BYTES
    for index in sorted(kept):
        line = json.dumps({"search": search, "index": index, **kept[index]}, separators=(",", ":"))
        room -= len(line) + 1  # of ASCII alone
        if room < 0:
            break
        lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def _read(path: Path, search: str) -> dict[int, dict[str, Any]]:
    """What the file says; nothing where it is damaged: that costs measurements, where an error would end the search."""
    try:
        entries = [_entry(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("%s is not read, and the trials that it names are measured again: %s", path, error)
        return {}
    return {index: kept for of, index, kept in entries if of == search}


def _entry(body: dict[str, Any]) -> tuple[str, int, dict[str, Any]]:
    result = TrialResult(**{**body["result"], "rows": tuple(body["result"]["rows"])})
    if (
        type(body["index"]) is not int
        or type(body["rank"]) is not int
        or (result.accuracy is None) != bool(result.error)
    ):
        raise ValueError(f"a kept result has a trial, a rank, and either an accuracy or an error, not {body}")
    return body["search"], body["index"], {"digest": body["digest"], "rank": body["rank"], "result": vars(result)}
