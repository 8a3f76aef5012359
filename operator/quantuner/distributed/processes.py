"""The processes of one launch: mpirun, and whatever ranks it leaves behind."""

import contextlib
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantuner.distributed.journal import JOURNAL_FILE, await_writer
from quantuner.distributed.output import Output

logger = logging.getLogger(__name__)

TOLD_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TERMINATE_SECONDS = 10.0  # for the ranks to end; the pod's grace period leaves as much again for the journal
WATCH_SECONDS = 1.0  # between two looks whether rank 0 is still there


@dataclass(frozen=True)
class Launch:
    """One start of all ranks."""

    command: Sequence[str]
    environment: Mapping[str, str]
    """Added to this process's own."""
    larger: Callable[[threading.Event], bool] | None = None
    """Waits for a moment at which it is better to start anew, on more hosts, and then returns True; returns False
    when the event is set. None where there are all that could be."""
    is_rank: bool = False
    """Whether the command is the one rank itself, and not mpirun."""


@dataclass(frozen=True)
class Ended:
    """How a launch ended. Exit codes prove nothing."""

    code: int
    tail: Sequence[str]
    """The last lines of the ranks' output."""
    outgrown: bool
    """Whether it was ended to be started anew on more hosts."""
    by_itself: bool
    """Whether rank 0 certainly ended first, if it was the only one, and nobody had told it to."""


class Processes:
    """Started when made. `end` may be called by any thread and by a signal's handler."""

    def __init__(self, launch: Launch, folder: Path, *, relay: bool) -> None:
        """`folder` has the journal that rank 0 writes; `relay` shows the ranks' output."""
        logger.info("starting %s", " ".join(launch.command))
        self._folder, self._relay, self._launch = folder, relay, launch
        self._told_to_end = False
        self._over = threading.Event()
        self._outgrown = False
        self._process = subprocess.Popen(
            launch.command,
            env={**os.environ, **launch.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,  # so that a Ctrl-C reaches this process first, which then ends the ranks
        )

    def end(self) -> None:
        """Tells the ranks to end; `wait` kills those that have not after TERMINATE_SECONDS.

        Takes no lock and starts no thread, since a handler may interrupt whoever does.
        """
        if not self._told_to_end and self._process.poll() is None:
            self._told_to_end = True
            self._process.terminate()

    def wait(self) -> Ended:
        """Returns when no process is left; once."""
        if self._process.stdout is None:
            raise TypeError("the ranks were started without a pipe for their output")
        output = Output(self._process.stdout, relay=self._relay)
        watches = (self._end_when_larger, self._end_after_rank_0, self._kill_late)
        watchers = [threading.Thread(target=watch) for watch in watches]
        for thread in watchers:
            thread.start()
        code = self._process.wait()
        self._over.set()
        for thread in watchers:  # they may be at the journal
            thread.join()
        asked = self._told_to_end
        self._end_leftovers()
        by_itself = not asked and _ended_by_itself(code, is_rank=self._launch.is_rank)
        return Ended(code, output.finish(TERMINATE_SECONDS), self._outgrown, by_itself)

    def _end_when_larger(self) -> None:
        if self._launch.larger is not None and self._launch.larger(self._over):
            self._outgrown = True
            self.end()

    def _end_after_rank_0(self) -> None:
        """Ends mpirun where it goes on long after rank 0 has closed the journal: Open MPI 5.0.11's waits for ever for a
        rank that is stopped, beside two that live.
        """
        size, gone = _size(self._folder), 0.0
        while gone < TERMINATE_SECONDS:
            if self._over.wait(WATCH_SECONDS):
                return
            # Before rank 0 has written it may not have opened it yet, and must find it free.
            written = _size(self._folder) != size
            gone = gone + WATCH_SECONDS if written and await_writer(self._folder, 0) else 0.0
        logger.warning("rank 0 has ended, and mpirun has not; it is told to")
        self.end()

    def _end_leftovers(self) -> None:
        """Ends ranks that mpirun has left behind, as it does when it loses a host: rank 0 would keep the journal."""
        session = self._process.pid
        _signal(session, signal.SIGTERM)
        if not await_writer(self._folder, TERMINATE_SECONDS):
            logger.warning("rank 0 does not end by itself after mpirun has; it is killed")
        _signal(session, signal.SIGKILL)
        await_writer(self._folder, TERMINATE_SECONDS)

    def _kill_late(self) -> None:
        """Kills what was told to end, and has not."""
        told = 0.0
        while told < TERMINATE_SECONDS:
            if self._over.wait(WATCH_SECONDS):
                return
            told += WATCH_SECONDS * self._told_to_end
        self._process.kill()


def _size(folder: Path) -> int:
    journal = folder / JOURNAL_FILE
    return journal.stat().st_size if journal.exists() else 0


def _ended_by_itself(code: int, *, is_rank: bool) -> bool:
    """Of one process; mpirun of Open MPI 5.0.11 exits with 0 where its ranks are killed, and by a signal if it is."""
    return code >= 0 or (is_rank and -code not in TOLD_TO_END)


def _signal(session: int, number: signal.Signals) -> None:
    """To every process of a session; where the system has no /proc, to none."""
    for folder in Path("/proc").glob("[0-9]*"):
        process = int(folder.name)
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if os.getsid(process) == session:
                os.kill(process, number)
