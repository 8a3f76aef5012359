"""Records what each rank did when, beside the journal. Written by rank 0; never in the way of a search."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from quantuner.api.timeline import SPANS_LIMIT, Ending, Kind, Span, encode_mark, encode_span
from quantuner.distributed.journal import replace_text

if TYPE_CHECKING:  # the executors of ranks tell observers themselves
    from quantuner.distributed.executors import Executor, Tell, Told

logger = logging.getLogger(__name__)

TIMELINE_FILE = "timeline.jsonl"
FLUSH_SECONDS = 0.25  # what a killed rank 0 may leave unwritten


class Observer(Protocol):
    """Is told what ranks did. Called by one thread."""

    def now(self) -> float:
        """Seconds since the launch began: the clock of spans."""

    def span(self, span: Span) -> None:
        """Takes a span that has ended. Cheap, and raises nothing."""


@contextlib.contextmanager
def observed(observer: Observer, kind: Kind, index: int = 0) -> Iterator[None]:
    """Tells of what rank 0 does inside; where that raises, as failed."""
    start, ending = observer.now(), Ending.FAILED
    try:
        yield
        ending = Ending.TOLD
    finally:
        observer.span(Span(0, kind, index, "", start, observer.now(), ending))


class Watched:
    """An executor in this process whose trials an observer is told of."""

    def __init__(self, executor: Executor, observer: Observer) -> None:
        self._executor, self._observer = executor, observer

    def run(self, first: int, payloads: Sequence[Any], tell: Tell) -> bool:
        def seen(told: Told) -> bool:
            end, result = self._observer.now(), told.result
            ending = Ending.FAILED if result.accuracy is None else Ending.TOLD
            if not told.earlier:
                self._observer.span(Span(0, Kind.TRIAL, told.index, "", end - result.seconds, end, ending))
            return tell(told)

        return self._executor.run(first, payloads, seen)

    def close(self) -> None:
        self._executor.close()


class Quiet:
    """Records nothing: for searches without a folder, and for ranks other than 0."""

    def now(self) -> float:
        return time.monotonic()

    def hosts(self, names: Sequence[str]) -> None:
        pass

    def span(self, span: Span) -> None:
        pass

    def close(self) -> None:
        pass

    def copy_to(self, folder: Path) -> None:
        pass


class Timeline:
    """Appends a launch to `timeline.jsonl` in a folder.

    What cannot be written is logged once, and then nothing is recorded any more. Spans are written at most four
    times a second and at `close`, the ones after the file's limit not at all.
    """

    def __init__(
        self,
        folder: Path,
        ranks: int,
        *,
        anew: bool = False,
        limit: int = SPANS_LIMIT,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """The launch begins now. `anew` forgets those before; `limit` counts the lines of the file."""
        self.path = folder / TIMELINE_FILE
        self._clock, self._began = clock, clock()
        self._lines: list[str] = []
        self._spans: list[Span] = []
        self._written_at = self._began - FLUSH_SECONDS
        self._file: TextIO | None = None
        self._room = limit
        try:
            folder.mkdir(parents=True, exist_ok=True)
            before = b"" if anew or not self.path.exists() else self.path.read_bytes()
            self._room = max(0, limit - before.count(b"\n"))
            self._file = self.path.open("w" if anew else "a", encoding="utf-8")
            if before and not before.endswith(b"\n"):
                self._lines.append("")  # ends the line inside which the writer before died
        except OSError as error:
            self._give_up(error)
        self._mark("launch", began=round(wall(), 3), ranks=ranks)

    def now(self) -> float:
        return self._clock() - self._began

    def hosts(self, names: Sequence[str]) -> None:
        """Names the host of each rank, once they are known."""
        self._mark("hosts", names=list(names))

    def span(self, span: Span) -> None:
        if self._file is None or self._room < 0:
            return
        self._room -= 1
        if self._room < 0:
            logger.warning("the timeline is full, and what follows is not recorded: %s", self.path)
            self._mark("full")
            return
        self._spans.append(span)
        if self._clock() - self._written_at >= FLUSH_SECONDS:
            self._write()

    def close(self) -> None:
        """Records that the launch has ended. Idempotent."""
        if self._file is None:
            return
        self._mark("end", at=round(self.now(), 6))
        self._let_go()

    def copy_to(self, folder: Path) -> None:
        """Keeps a copy in another folder, once closed: the first may end with its pod."""
        copy = folder / TIMELINE_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and copy.resolve() != self.path.resolve():
                replace_text(copy, self.path.read_text(encoding="utf-8"))
        except OSError as error:
            logger.warning("the timeline is not kept in %s: %s", folder, error)

    def _mark(self, op: str, **fields: object) -> None:
        self._take_spans()
        self._lines.append(encode_mark(op, **fields))
        self._write()

    def _take_spans(self) -> None:
        self._lines += map(encode_span, self._spans)
        self._spans.clear()

    def _write(self) -> None:
        if self._file is None:
            return
        self._take_spans()
        self._written_at = self._clock()
        try:
            self._file.write("\n".join([*self._lines, ""]))
            self._file.flush()
        except OSError as error:
            self._give_up(error)
        self._lines.clear()

    def _give_up(self, error: OSError) -> None:
        logger.warning("no timeline is recorded, the search goes on: %s: %s", self.path, error)
        self._let_go()

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # what it still holds could not be written a moment ago
                file.close()
