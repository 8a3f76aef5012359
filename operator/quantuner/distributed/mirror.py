"""Keeps the ConfigMaps of a search equal to its files, through any absence of the API server."""

import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from quantuner.api.journal import line_key, lines_of
from quantuner.api.names import ANSWERED_KEY, BEST_KEY
from quantuner.distributed.answered import ANSWERED_FILE
from quantuner.distributed.configmap import ApiRefusedError, ApiUnavailableError, ConfigMaps
from quantuner.distributed.held import Held, SupersededError
from quantuner.distributed.journal import BEST_FILE, JOURNAL_FILE, read_lines, replace_text

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.3  # how far status may lag behind the search; also what coalesces fast trials into one patch
RETRY_LIMIT_SECONDS = 15.0
FINISH_RETRY_SECONDS = 2.0
LINES_PER_PATCH = 500


class Mirror:
    """Copies new journal lines, the best configuration and results that wait to be told to the cluster.

    From a thread of its own. Of two mirrors of one search, the one that was restored later is heard.
    """

    def __init__(
        self,
        folder: Path,
        configmaps: ConfigMaps,
        journal: str,
        result: str,
        superseded: Callable[[], None] = lambda: None,
    ) -> None:
        """`superseded` is called, by that thread, where another mirror has taken over."""
        self._journal_file, self._best_file = folder / JOURNAL_FILE, folder / BEST_FILE
        self._answered_file = folder / ANSWERED_FILE
        writer = f"{socket.gethostname()} {uuid.uuid4().hex[:8]}"
        self._journal, self._result = Held(configmaps, journal, writer), Held(configmaps, result, writer)
        self._superseded = superseded
        self._sent = 0
        self._best_sent: str | None = None
        self._answered_sent: str | None = None
        self._sends_answered = True
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="journal-mirror")
        self._error: Exception | None = None

    def restore(self, stop: threading.Event | None = None) -> bool:
        """Takes the ConfigMaps and writes the files from them, unless the pod's own are ahead. Before `start`.

        Waits for the server; returns False where `stop` is set before it has answered.
        """
        stop = stop or threading.Event()
        journal, result = self._patiently(self._journal, stop), self._patiently(self._result, stop)
        if journal is None or result is None:
            return False
        lines, best, answered = lines_of(journal), result.get(BEST_KEY), result.get(ANSWERED_KEY)
        if len(read_lines(self._journal_file)) < len(lines):
            self._journal_file.parent.mkdir(parents=True, exist_ok=True)
            self._journal_file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            if best is not None:
                self._best_file.write_text(best, encoding="utf-8")
            if answered is not None:
                replace_text(self._answered_file, answered)
        self._sent, self._best_sent, self._answered_sent = len(lines), best, answered
        return True

    def _patiently(self, held: Held, stop: threading.Event) -> Mapping[str, str] | None:
        delay = INTERVAL_SECONDS
        while not stop.is_set():
            try:
                return held.take()
            except ApiUnavailableError as error:
                logger.warning("the journal cannot be restored yet: %s", error)
                stop.wait(delay)
                delay = min(2 * delay, RETRY_LIMIT_SECONDS)
        return None

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Returns when all that the files hold is on the cluster. Raises what made that impossible."""
        self._stop.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _loop(self) -> None:
        try:
            delay = INTERVAL_SECONDS
            while True:
                last = self._stop.wait(delay)
                try:
                    if last:
                        self._look_again()
                    self._flush()
                except ApiUnavailableError as error:
                    logger.warning("journal not flushed, kept in %s: %s", self._journal_file, error)
                    delay = min(2 * delay, RETRY_LIMIT_SECONDS)
                    if last:  # the stop event no longer waits, and a pod that is being ended has little time
                        time.sleep(FINISH_RETRY_SECONDS)
                    continue
                delay = INTERVAL_SECONDS
                if last:
                    return
        except SupersededError as error:
            logger.error("%s", error)
            self._error = error
            self._superseded()
        except Exception as error:  # handed to the main thread, which raises it when the search ends
            logger.error("the journal no longer reaches the cluster, and goes on in %s: %s", self._journal_file, error)
            self._error = error

    def _look_again(self) -> None:
        """Before the last time: somebody may have deleted what was sent, and the operator created it anew, empty."""
        self._sent = min(self._sent, len(lines_of(self._journal.look())))
        result = self._result.look()
        self._best_sent, self._answered_sent = result.get(BEST_KEY), result.get(ANSWERED_KEY)

    def _flush(self) -> None:
        """The best configuration first, so that a reader of the journal finds it."""
        lines = read_lines(self._journal_file)
        best, answered = _text(self._best_file), _text(self._answered_file)
        if best is not None and best != self._best_sent:
            self._result.add({BEST_KEY: best})
            self._best_sent = best
        while self._sent < len(lines):
            upto = min(len(lines), self._sent + LINES_PER_PATCH)
            kept = self._journal.add({line_key(i): lines[i] for i in range(self._sent, upto)})
            # Somebody may have deleted the ConfigMap, and the operator created it anew: then all is sent again.
            self._sent = upto if line_key(0) in kept else 0
        if answered is not None and answered != self._answered_sent and self._sends_answered:
            self._send_answered(answered)

    def _send_answered(self, answered: str) -> None:
        """Last, and no reason to end: without it, a new pod measures some trials again."""
        try:
            self._result.add({ANSWERED_KEY: answered})
            self._answered_sent = answered
        except ApiRefusedError as error:
            logger.warning("results that wait to be told no longer reach the cluster: %s", error)
            self._sends_answered = False


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None
