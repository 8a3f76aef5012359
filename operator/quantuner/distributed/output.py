"""What ranks write: passed on as it comes, and its last lines kept."""

import codecs
import collections
import io
import locale
import os
import re
import select
import sys
import threading
from collections.abc import Iterator
from typing import IO

TAIL_LINES = 15
LOOK_SECONDS = 0.5  # between two looks whether nobody is listened to any more
PIPE_BYTES = 1 << 16
LINE_LIMIT = 4000  # characters that are kept of a line
# What Open MPI 5 says of an abort, in some ten lines that would push out why a rank has aborted.
_OF_AN_ABORT = re.compile(
    r"-{20,}$|MPI_ABORT was invoked on rank|\s+Proc: \[\[|\s+Errorcode: |NOTE: invoking MPI_ABORT causes"
    r"|You may or may not see output from other processes|exactly when Open MPI kills them"
    r"|\d+ more process(es)? ha(s|ve) sent help message|Set MCA parameter"
    r"|\w+ has exited due to process rank|\"abort\"\. This may have caused|terminated by signals sent by"
)


class Output:
    """A thread that reads a pipe. Processes that outlive the ranks may hold the other end: nobody waits for them."""

    def __init__(self, pipe: IO[bytes], *, relay: bool) -> None:
        """Takes the pipe; `relay` passes on to stderr what comes."""
        self._pipe, self._relay = pipe, relay
        self._tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._read, name="rank-output", daemon=True)
        self._thread.start()

    def finish(self, seconds: float) -> list[str]:
        """The last lines that say something, when all was read that is there; at the latest after so many seconds."""
        self._enough.set()
        self._thread.join(seconds)
        return list(self._tail)

    def _read(self) -> None:
        decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(locale.getencoding())("replace"), True)
        line = ""
        with self._pipe:
            for data in self._arriving():
                text = decoder.decode(data)
                self._show(text)
                *lines, line = (line + text).split("\n")
                for one in lines:
                    self._keep(one)
                line = line[:LINE_LIMIT]
        self._keep(line)

    def _arriving(self) -> Iterator[bytes]:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        while True:
            enough = self._enough.is_set()  # before the look: what came before it is read
            if poll.poll(0 if enough else 1000 * LOOK_SECONDS):
                data = os.read(self._pipe.fileno(), PIPE_BYTES)
                if not data:
                    return
                yield data
            elif enough:
                return

    def _show(self, text: str) -> None:
        """A log that takes nothing more, as of `… | head`, is no reason to end a search."""
        if not self._relay or not text:
            return
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):  # gone, closed, or never there
            self._relay = False

    def _keep(self, line: str) -> None:
        said = "".join(sign for sign in line[:LINE_LIMIT] if sign.isprintable() or sign == "\t").rstrip()
        if said and not _OF_AN_ABORT.match(said):
            self._tail.append(said)
