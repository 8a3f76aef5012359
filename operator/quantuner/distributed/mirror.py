"""Keeps the ConfigMaps of a search equal to its files, through any absence of the API server."""

import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from quantuner.api.described import without_config
from quantuner.api.journal import line_key, lines_of
from quantuner.api.names import BEST_KEY
from quantuner.distributed.answered import ANSWERED_FILE
from quantuner.distributed.configmap import ApiRefusedError, ApiUnavailableError, ConfigMaps
from quantuner.distributed.held import Held, SupersededError
from quantuner.distributed.journal import BEST_FILE, JOURNAL_FILE, read_lines, replace_text
from quantuner.distributed.losses import LOSSES_FILE
from quantuner.distributed.told import Stop

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.3  # how far status may lag behind the search; also what coalesces fast trials into one patch
RETRY_LIMIT_SECONDS = 15.0
FINISH_RETRY_SECONDS = 2.0
FINISH_READS = 3  # at the end, of a file that cannot be read
LINES_PER_PATCH = 500
BESIDE = (ANSWERED_FILE, LOSSES_FILE)
"""Files, and keys of the result ConfigMap, that a new pod can go on without: it then evaluates some trials again."""


class Mirror:
    """Copies new journal lines, the best configuration, results that wait to be told and losses to the cluster.

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
        self._folder = folder
        self._journal_file, self._best_file = folder / JOURNAL_FILE, folder / BEST_FILE
        writer = f"{socket.gethostname()} {uuid.uuid4().hex[:8]}"
        self._journal, self._result = Held(configmaps, journal, writer), Held(configmaps, result, writer)
        self._superseded = superseded
        self._sent = 0
        self._best_sent: str | None = None
        self._beside_sent: dict[str, str] = {}
        self._refused: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="journal-mirror")
        self._error: Exception | None = None

    def restore(self, stop: Stop | None = None) -> bool:
        """Takes the ConfigMaps and writes the files from them, unless the pod's own are ahead. Before `start`.

        Waits for the server; returns False where `stop` is set before it has answered.
        """
        stop = stop or threading.Event()
        journal, result = self._patiently(self._journal, stop), self._patiently(self._result, stop)
        if journal is None or result is None:
            return False
        lines, best, beside = lines_of(journal), result.get(BEST_KEY), _beside(result)
        if len(read_lines(self._journal_file)) < len(lines):
            self._journal_file.parent.mkdir(parents=True, exist_ok=True)
            self._journal_file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            if best is not None:
                self._best_file.write_text(best, encoding="utf-8")
            for name, text in beside.items():
                replace_text(self._folder / name, text)
        self._sent, self._best_sent, self._beside_sent = len(lines), best, beside
        return True

    def _patiently(self, held: Held, stop: Stop) -> Mapping[str, str] | None:
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
            delay, unread = INTERVAL_SECONDS, 0
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
                except OSError as error:
                    unread += last
                    if unread == FINISH_READS:
                        raise
                    logger.warning("journal not flushed this time: %s", error)
                    if last:
                        time.sleep(INTERVAL_SECONDS)
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
        self._best_sent, self._beside_sent = result.get(BEST_KEY), _beside(result)

    def _flush(self) -> None:
        """The best configuration first, so that a reader of the journal finds it."""
        lines = read_lines(self._journal_file)
        self._send_best(_text(self._best_file))
        while self._sent < len(lines):
            upto = min(len(lines), self._sent + LINES_PER_PATCH)
            kept = self._journal.add({line_key(i): lines[i] for i in range(self._sent, upto)})
            # Somebody may have deleted the ConfigMap, and the operator created it anew: then all is sent again.
            self._sent = upto if line_key(0) in kept else 0
        for name in BESIDE:
            self._send_beside(name, _text(self._folder / name))

    def _send_best(self, text: str | None) -> None:
        """Without every op's configuration where the server does not take it whole, and no reason to end."""
        if text is None or text == self._best_sent:
            return
        try:
            self._result.add({BEST_KEY: text})
        except ApiRefusedError as error:
            logger.warning("%s reaches the cluster without its config: %s", self._best_file, error)
            self._send_summary(text)
        self._best_sent = text

    def _send_summary(self, text: str) -> None:
        try:
            self._result.add({BEST_KEY: without_config(text)})
        except ApiRefusedError as error:
            logger.warning("nor does its summary: %s", error)

    def _send_beside(self, name: str, text: str | None) -> None:
        """Last, and no reason to end."""
        if text is None or text == self._beside_sent.get(name) or name in self._refused:
            return
        try:
            self._result.add({name: text})
            self._beside_sent[name] = text
        except ApiRefusedError as error:
            logger.warning("%s no longer reaches the cluster: %s", name, error)
            self._refused.add(name)


def _beside(result: Mapping[str, str]) -> dict[str, str]:
    return {name: result[name] for name in BESIDE if name in result}


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:  # not written yet, or gone since
        return None
