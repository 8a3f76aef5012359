"""A rank that is a fork of its pod's fork server, as mpirun sees it: `python forked.py SOCKET MODULE ARGUMENTS…`.

Asks for the fork, gives it what mpirun gave this process, hands on signals, and ends as the fork ends. Where there is
no server, or one whose libraries were loaded under other variables, it becomes the rank itself. It is run as a file and
imports next to nothing: this is what a start still waits for.
"""

import array
import marshal
import os
import signal
import socket
import sys
from typing import NoReturn

FORWARDED = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGTSTP),
)
STARTED = b"started"
MESSAGE_BYTES = 4096
IMPORTING_SECONDS = 300.0  # after which a server hangs


class NoForkError(Exception):
    """The server forks nothing for this process; says why."""


class Signals:
    """Hands on signals to the rank, or before it is there, to the server, which reads them behind the order."""

    def __init__(self) -> None:
        self._came: list[int] = []
        self._before: dict[int, object] = {}

    def hand_on(self, connection: socket.socket) -> None:
        def forward(number: int, _: object) -> None:
            self._came.append(number)
            try:
                connection.send(bytes([number]))
            except OSError:  # the rank has ended
                return

        for number in FORWARDED:
            self._before[number] = signal.signal(number, forward)

    def take_back(self) -> None:
        """Nobody has heeded those that came; they do here what they would have done."""
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_IGN if before is signal.SIG_IGN else signal.SIG_DFL)
        for number in self._came:
            os.kill(os.getpid(), number)


def main() -> NoReturn:
    path, module, *arguments = sys.argv[1:]
    signals = Signals()
    try:
        connection = _ask(path, arguments, signals)
    except (OSError, NoForkError) as error:
        signals.take_back()
        sys.stderr.write(f"a rank imports by itself, which takes some seconds: no fork by {path}: {error}\n")
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, "-u", "-m", module, *arguments])  # noqa: S606
    _end_as(None if connection is None else _follow(connection))


def _ask(path: str, arguments: list[str], signals: Signals) -> socket.socket | None:
    """Returns when the rank has been forked; waits for a server that is still importing.

    None where that has ended without a word: it was killed, or whom it serves has ended, and nobody would look after a
    rank. Whoever does starts the ranks again.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(path)
    given = array.array("i", [0, 1, 2, _order(arguments)])
    connection.settimeout(IMPORTING_SECONDS)
    try:
        connection.sendmsg([b"fork"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, given)])
        signals.hand_on(connection)  # the rank may be there before its answer is read
        answer = connection.recv(MESSAGE_BYTES)
    except ConnectionError:
        return None
    if answer not in (STARTED, b""):
        raise NoForkError(answer.decode())
    connection.settimeout(None)
    return connection if answer else None


def _order(arguments: list[str]) -> int:
    """A file in memory with what the rank is to be; an environment may be larger than a message."""
    umask = os.umask(0o077)
    os.umask(umask)
    order = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": os.getcwd(),  # noqa: PTH109 (pathlib would be imported)
        "umask": umask,
        "processors": tuple(os.sched_getaffinity(0)),
        "python": f"{sys.executable} {sys.version}",
    }
    file = os.memfd_create("order")
    os.write(file, marshal.dumps(order))
    return file


def _follow(connection: socket.socket) -> int | None:
    """The rank's wait status; None where its server ended, and so ended it."""
    try:
        status = connection.recv(MESSAGE_BYTES)
    except OSError:
        return None
    return int(status) if status else None


def _end_as(status: int | None) -> NoReturn:
    """By the same signal, where it was one: PRRTE tells a rank that was killed from one that has left."""
    code = -signal.SIGKILL if status is None else os.waitstatus_to_exitcode(status)
    if code >= 0:
        sys.exit(code)
    _die_by(-code)
    os._exit(128 - code)


def _die_by(number: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # the rank has left one
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    main()
