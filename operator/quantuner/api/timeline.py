"""What each rank did when: spans, and the launches they belong to. For people; no search depends on it.

A file of lines: an array is a `Span`, an object a mark (`op`): a launch with its wall clock, the hosts of its ranks,
its end, and the place where recording stopped. Several launches follow each other in one file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from quantuner.api.errors import JournalError

FORMAT = 1
SPANS_LIMIT = 100_000  # of one file: about 6 MB


class Kind(StrEnum):
    """What a rank was doing."""

    SETUP = "setup"  # loading and capturing the model, calibrating
    BASELINE = "baseline"
    TRIAL = "trial"
    PART = "part"  # a share of a trial that another rank evaluates
    DUPLICATE = "duplicate"  # a trial that another rank is already evaluating
    VERIFY = "verify"  # the winner: converted, saved, loaded and measured


class Ending(StrEnum):
    """What became of it."""

    TOLD = "told"  # its result counts
    ABANDONED = "abandoned"  # its result could no longer matter
    FAILED = "failed"  # it raised
    LOST = "lost"  # with its rank


@dataclass(frozen=True, slots=True)
class Span:
    """One thing that one rank did."""

    rank: int
    kind: str
    """A `Kind`."""
    index: int
    """Of the trial; 0, the baseline's, where it belongs to none."""
    part: str
    """Which share, as `2/3`; empty for the whole."""
    start: float
    """Seconds since the launch began, on rank 0's clock, as `end`."""
    end: float
    outcome: str
    """An `Ending`."""

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass
class LaunchSpans:
    """One start of all ranks, and what they did."""

    began: float
    """Seconds since 1970 (UTC)."""
    ranks: int
    hosts: tuple[str, ...] = ()
    """Host of each rank; empty where it ended before they were known."""
    spans: list[Span] = field(default_factory=list)
    ended: float | None = None
    """Seconds since it began; None where its rank 0 could not say so: it was killed, or still runs."""
    full: bool = False
    """Whether recording stopped at the limit, before the launch ended."""

    @property
    def seconds(self) -> float:
        """How long it lasted, as far as is known."""
        last = max((span.end for span in self.spans), default=0.0)
        return last if self.full or self.ended is None else max(last, self.ended)


def encode_span(span: Span) -> str:
    """One line, without its newline. Times to a microsecond."""
    start, end = round(span.start, 6), round(span.end, 6)
    return _line([span.rank, span.kind, span.index, span.part, start, end, span.outcome])


def encode_mark(op: str, **fields: Any) -> str:
    """The line of a launch (began, ranks), its hosts (names), its end (at), or the limit (full)."""
    return _line({"v": FORMAT, "op": op, **fields})


_line = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def read(lines: Iterable[str]) -> list[LaunchSpans]:
    """The launches of a file, in order. A damaged line, of a writer that died inside it, is passed over.

    Raises `JournalError` for a file of another format.
    """
    launches: list[LaunchSpans] = []
    for line in lines:
        try:
            _apply(json.loads(line), launches)
        except (ValueError, KeyError, IndexError, TypeError):
            continue
    return launches


def _apply(body: Any, launches: list[LaunchSpans]) -> None:
    if isinstance(body, list):
        rank, kind, index, part, start, end, outcome = body
        launches[-1].spans.append(Span(rank, str(kind), index, str(part), start + 0.0, end + 0.0, str(outcome)))
        return
    if body["v"] != FORMAT:
        raise JournalError(
            f"this version reads timelines of format {FORMAT}, not {body['v']!r}; use the one that wrote it"
        )
    op = body["op"]
    if op == "launch":
        launches.append(LaunchSpans(began=body["began"] + 0.0, ranks=int(body["ranks"])))
    elif op == "hosts":
        launches[-1].hosts = tuple(body["names"])
    elif op == "end":
        launches[-1].ended = body["at"] + 0.0
    elif op == "full":
        launches[-1].full = True
