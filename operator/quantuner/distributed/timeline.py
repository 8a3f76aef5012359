"""Records what each rank did when, beside the journal. Written by rank 0; never in the way of a search."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from quantuner.api.timeline import SPANS_LIMIT, Ending, Kind, Span, encode_mark, encode_span

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


class Timeline:
    """Appends a launch to `timeline.jsonl` in a folder, and in a second one that outlives it.

    What cannot be written is logged once, and then nothing more is recorded there. Spans are written at most four
    times a second and at `close`, the ones after the file's limit not at all.
    """

    def __init__(
        self,
        folder: Path,
        ranks: int,
        *,
        anew: bool = False,
        beside: Path | None = None,
        held: bool = False,
        limit: int = SPANS_LIMIT,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """The launch begins now. `anew` forgets those before; what one folder has lost of them comes from `beside`.
        `held` leaves the files as they are until `begin`. `limit` counts the lines of a file.
        """
        self._clock, self._began = clock, clock()
        self._lines: list[str] = []
        self._spans: list[Span] = []
        self._written_at = self._began - FLUSH_SECONDS
        self._files: list[TextIO] = []
        self._paths = [one / TIMELINE_FILE for one in (folder, beside) if one is not None]
        self._anew, self._held = anew, held
        self._before = before = b"" if anew else max(map(_content, self._paths), key=len)
        self._room = max(0, limit - before.count(b"\n"))
        if before and not before.endswith(b"\n"):
            self._lines.append("")  # ends the line inside which the writer before died
        self._lines.append(encode_mark("launch", began=round(wall(), 3), ranks=ranks))
        if not held:
            self.begin()

    def begin(self) -> None:
        """Writes from now on, and what was recorded before."""
        self._held = False
        for path in self._paths:
            self._open(path)
        self._write()

    def _open(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not self._anew and _content(path) != self._before:
                path.write_bytes(self._before)
            self._files.append(path.open("w" if self._anew else "a", encoding="utf-8"))
        except OSError as error:
            _warn(path, error)

    def now(self) -> float:
        return self._clock() - self._began

    def hosts(self, names: Sequence[str]) -> None:
        """Names the host of each rank, once they are known."""
        self._mark("hosts", names=list(names))

    def span(self, span: Span) -> None:
        if not (self._files or self._held) or self._room < 0:
            return
        self._room -= 1
        if self._room < 0:
            logger.warning("the timeline is full, and what follows is not recorded: %s", self._paths[0])
            self._mark("full")
            return
        self._spans.append(span)
        if self._clock() - self._written_at >= FLUSH_SECONDS:
            self._write()

    def close(self) -> None:
        """Records that the launch has ended. Idempotent."""
        if not self._files:
            return
        self._mark("end", at=round(self.now(), 6))
        while self._files:
            self._let_go(self._files[0])

    def _mark(self, op: str, **fields: object) -> None:
        self._take_spans()
        self._lines.append(encode_mark(op, **fields))
        self._write()

    def _take_spans(self) -> None:
        self._lines += map(encode_span, self._spans)
        self._spans.clear()

    def _write(self) -> None:
        if self._held:
            return
        self._take_spans()
        self._written_at = self._clock()
        for file in [*self._files]:
            try:
                file.write("\n".join([*self._lines, ""]))
                file.flush()
            except OSError as error:
                _warn(file.name, error)
                self._let_go(file)
        self._lines.clear()

    def _let_go(self, file: TextIO) -> None:
        self._files.remove(file)
        with contextlib.suppress(OSError):  # what it still holds could not be written a moment ago
            file.close()


def _content(path: Path) -> bytes:
    """What launches before have left; nothing where that cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _warn(path: Path | str, error: OSError) -> None:
    logger.warning("no timeline is recorded in %s, the search goes on: %s", path, error)
