"""Starts the ranks, and after a loss starts them again, until the journal has ended. Exit codes prove nothing."""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from quantuner.api.conditions import Failure
from quantuner.api.journal import Failed, Finished, History
from quantuner.api.timestamps import utc_now
from quantuner.distributed.begun import settle
from quantuner.distributed.journal import JOURNAL_FILE, JournalFolder, read_history, read_lines
from quantuner.distributed.losses import Losses
from quantuner.distributed.processes import TOLD_TO_END, Ended, Launch, Processes
from quantuner.distributed.told import Stop, Told

logger = logging.getLogger(__name__)

FRUITLESS_LAUNCHES = 3  # launches in a row that told nothing, after which a person has to look
PAUSE_SECONDS = 1.0  # after the first of them, twice as long after the next: what failed them may need a moment
TERMINATED = 128 + signal.SIGTERM
"""Exit code of one that was told to stop."""


class Supervisor:
    """Runs launches one after the other. Made and used in the main thread, since it handles SIGTERM."""

    def __init__(
        self,
        folder: Path,
        launch: Callable[[Stop], Launch],
        *,
        relay: bool = True,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        """`launch` is asked before each start, since hosts come and go; its argument is set when it should hurry.

        `relay` shows the ranks' output; `pause` is waited after a launch that told nothing, twice as long after the
        next.
        """
        self._folder = folder
        self._relay = relay
        self._launch = launch
        self._pause = pause
        self._processes: Processes | None = None
        self.terminated = Told()
        """Set when this process was told to stop."""

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Signals that say to stop are heeded from here on; `run` does so by itself.

        For what comes before and after it: the first process of a pod never gets a signal that it does not handle,
        and one that comes a second time must not cut off what the first has begun. Those that whoever started this
        process has it ignore, as nohup does, are ignored still.
        """
        heeded = [number for number in TOLD_TO_END if signal.getsignal(number) is not signal.SIG_IGN]
        previous = {number: signal.signal(number, self._on_signal) for number in heeded}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def run(self) -> int:
        """0 when the journal has ended, finished or failed; TERMINATED when told to stop before that.

        Raises `SearchError` where the journal cannot be written, not even that the search has failed.
        """
        with self.listening():
            return self._until_ended()

    def _until_ended(self) -> int:
        if isinstance(self._history().end, Finished):  # a failed search is tried again: somebody has acted
            return 0
        fruitless = 0
        settle(self._folder, blame=False)  # of a supervisor that is gone nobody knows what it told its ranks
        while True:
            before, lost = self._lines(), self._lost()
            launch = self._launch(self.terminated)
            if self.terminated.is_set():
                return TERMINATED
            ended = self._run(launch)
            lines = self._lines() - before
            if lines and self._history().end is not None:
                return 0
            if self.terminated.is_set():
                return TERMINATED
            fruitless = _fruitless(fruitless, lines, ended, blamed=self._lost() > lost)
            if fruitless == FRUITLESS_LAUNCHES:
                self._give_up(ended.code, ended.tail)
                return 0
            if fruitless and not ended.outgrown:
                self.terminated.wait(self._pause * 2 ** (fruitless - 1))

    def _lines(self) -> int:
        return len(read_lines(self._folder / JOURNAL_FILE))

    def _lost(self) -> float:
        """Ranks for which trials are blamed."""
        return sum(Losses(self._folder).known.values())

    def _history(self) -> History:
        return read_history(self._folder / JOURNAL_FILE)

    def _run(self, launch: Launch) -> Ended:
        self._processes = Processes(launch, self._folder, relay=self._relay)
        if self.terminated.is_set():  # the signal came while the ranks were being started
            self._processes.end()
        ended = self._processes.wait()
        settle(self._folder, blame=ended.by_itself)
        return ended

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """As SIGTERM does; from any thread, and in the middle of anything."""
        self.terminated.set()
        if self._processes is not None:
            self._processes.end()

    def _give_up(self, code: int, tail: Sequence[str]) -> None:
        """Ends the journal, whose writer is gone. Raises `SearchError` where it cannot be written."""
        last = tail[-1] if tail else "no output"
        lost = Failed(
            reason=Failure.RANKS_LOST,
            message=f"{FRUITLESS_LAUNCHES} launches in a row ended without a trial told (exit code {code}); "
            f"last line: {last.strip()[:300]}. Look for out-of-memory kills and hosts that do not answer",
            traceback="\n".join(tail),
            time=utc_now(),
        )
        with contextlib.closing(JournalFolder(self._folder)) as journal:
            journal.append(lost)


def _fruitless(before: int, lines: int, ended: Ended, *, blamed: bool) -> int:
    """Launches in a row that told nothing, after one that added so many lines to the journal.

    One after which a trial is blamed for more ranks is none of them: that ends when the trial has failed.
    """
    if ended.outgrown:
        logger.info("the ranks were ended, since hosts are back")
    else:
        logger.warning("the ranks ended with exit code %s before the search did", ended.code)
    if lines > 1:  # a launch record alone is no progress: it is written before the first trial
        return 0
    return before if ended.outgrown or blamed else before + 1
