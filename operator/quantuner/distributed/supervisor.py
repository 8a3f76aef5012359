"""Starts the ranks, and after a loss starts them again, until the journal has ended. Exit codes prove nothing."""

import collections
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from quantuner.api.conditions import Failure
from quantuner.api.journal import Failed, Finished, History
from quantuner.api.timestamps import utc_now
from quantuner.distributed.journal import JOURNAL_FILE, JournalFolder, await_writer, read_history, read_lines

logger = logging.getLogger(__name__)

FRUITLESS_LAUNCHES = 3  # launches in a row that told nothing, after which a person has to look
TAIL_LINES = 15
TERMINATE_SECONDS = 10.0  # for the ranks to end; the pod's grace period leaves as much again for the journal
TERMINATED = 128 + signal.SIGTERM
"""Exit code of one that was told to stop."""


@dataclass(frozen=True)
class Launch:
    """One start of all ranks."""

    command: Sequence[str]
    environment: Mapping[str, str]
    """Added to this process's own."""


class Supervisor:
    """Runs launches one after the other. Made and used in the main thread, since it handles SIGTERM."""

    def __init__(self, folder: Path, launch: Callable[[threading.Event], Launch], *, relay: bool = True) -> None:
        """`launch` is asked before each start, since hosts come and go; its argument is set when it should hurry.

        `relay` shows the ranks' output.
        """
        self._folder = folder
        self._relay = relay
        self._launch = launch
        self._process: subprocess.Popen[str] | None = None
        self._killer: threading.Timer | None = None
        self.terminated = threading.Event()
        """Set when this process was told to stop."""

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Signals that say to stop are heeded from here on; `run` does so by itself.

        For what comes before and after it: the first process of a pod never gets a signal that it does not handle,
        and one that comes a second time must not cut off what the first has begun.
        """
        previous = {s: signal.signal(s, self._on_signal) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def run(self) -> int:
        """0 when the journal has ended, finished or failed; TERMINATED when told to stop before that."""
        with self.listening():
            return self._until_ended()

    def _until_ended(self) -> int:
        if isinstance(self._history().end, Finished):  # a failed search is tried again: somebody has acted
            return 0
        fruitless = 0
        while fruitless < FRUITLESS_LAUNCHES:
            before = len(read_lines(self._folder / JOURNAL_FILE))
            launch = self._launch(self.terminated)
            if self.terminated.is_set():
                return TERMINATED
            code, tail = self._start(launch)
            lines = len(read_lines(self._folder / JOURNAL_FILE)) - before
            if lines and self._history().end is not None:
                return 0
            if self.terminated.is_set():
                return TERMINATED
            # A launch record alone is no progress: it is written before the first trial.
            fruitless = 0 if lines > 1 else fruitless + 1
            logger.warning("the ranks ended with exit code %s before the search did", code)
        self._give_up(code, tail)
        return 0

    def _history(self) -> History:
        return read_history(self._folder / JOURNAL_FILE)

    def _start(self, launch: Launch) -> tuple[int, list[str]]:
        logger.info("starting %s", " ".join(launch.command))
        tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._process = subprocess.Popen(
            launch.command,
            env={**os.environ, **launch.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # so that a Ctrl-C reaches this process first, which then ends the ranks
        )
        if self.terminated.is_set():  # the signal came while the ranks were being started
            self._end_ranks()
        reader = threading.Thread(target=_read, args=(self._process, tail, self._relay), name="rank-output")
        reader.start()
        code = self._process.wait()
        if self._killer is not None:
            self._killer.cancel()
        self._end_leftovers(self._process.pid)  # first, since they may hold the pipe that the reader reads
        reader.join(TERMINATE_SECONDS)
        return code, list(tail)

    def _end_leftovers(self, session: int) -> None:
        """Ends ranks that mpirun has left behind, as it does when it loses a host: rank 0 would keep the journal."""
        _signal(session, signal.SIGTERM)
        if not await_writer(self._folder, TERMINATE_SECONDS):
            logger.warning("rank 0 does not end by itself after mpirun has; it is killed")
        _signal(session, signal.SIGKILL)
        await_writer(self._folder, TERMINATE_SECONDS)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.terminated.set()
        self._end_ranks()

    def _end_ranks(self) -> None:
        if self._killer is None and self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._killer = threading.Timer(TERMINATE_SECONDS, self._kill)
            self._killer.start()

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def _give_up(self, code: int, tail: Sequence[str]) -> None:
        """Ends the journal, whose writer is gone."""
        journal = JournalFolder(self._folder)
        last = next((line for line in reversed(tail) if line.strip()), "no output")
        journal.append(
            Failed(
                reason=Failure.RANKS_LOST,
                message=f"{FRUITLESS_LAUNCHES} launches in a row ended without a trial told (exit code {code}); "
                f"last line: {last.strip()[:300]}. Look for out-of-memory kills and hosts that do not answer",
                traceback="\n".join(tail),
                time=utc_now(),
            )
        )
        journal.close()


def _signal(session: int, number: signal.Signals) -> None:
    """To every process of a session; where the system has no /proc, to none."""
    for folder in Path("/proc").glob("[0-9]*"):
        process = int(folder.name)
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if os.getsid(process) == session:
                os.kill(process, number)


def _read(process: subprocess.Popen[str], tail: collections.deque[str], relay: bool) -> None:
    """Keeps the end of the ranks' output, and passes it on where asked."""
    if process.stdout is None:
        raise TypeError("the ranks were started without a pipe for their output")
    with process.stdout as lines:
        for line in lines:
            tail.append(line.rstrip("\n"))
            if relay:
                sys.stderr.write(line)
                sys.stderr.flush()
