"""Starts a fork server, and says how mpirun has a rank forked by it."""

import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from quantuner.api.names import FORKS_VARIABLE
from quantuner.distributed import forked

PROGRAM = "quantuner.run"
SOCKET = "fork-server"
_WAITING = 128  # clients, while the server imports


logger = logging.getLogger(__name__)


def wanted(*, default: bool) -> bool:
    """Whether ranks are to be forks, as the variable says with 1 or 0; `default` where it says neither."""
    return {"1": True, "0": False}.get(os.environ.get(FORKS_VARIABLE, ""), default)


@contextlib.contextmanager
def serving(folder: Path, program: str = PROGRAM) -> Iterator[None]:
    """A server in `folder` meanwhile. Without one, which is logged, clients import by themselves."""
    try:
        server = start(folder, os.environ, program)
    except OSError as error:
        logger.warning("no fork server, ranks import by themselves: %s", error)
        yield
        return
    with server:
        try:
            yield
        finally:
            server.kill()


def start(folder: Path, environment: Mapping[str, str], program: str = PROGRAM) -> subprocess.Popen[bytes]:
    """A server with a socket in `folder`, where clients may wait from now on; it ends with this process.

    Raises `OSError` where there can be no socket or no process.
    """
    with _listening_at(folder / SOCKET) as listening:
        command = _command(listening, os.getpid(), program)
        handed = [listening.fileno()]
        return subprocess.Popen(
            command, env=environment, pass_fds=handed, stdin=subprocess.DEVNULL, start_new_session=True
        )


def become(folder: Path, environment: Mapping[str, str], program: str = PROGRAM) -> NoReturn:
    """Makes this process such a server, which ends with its parent. Raises `OSError` where there can be no socket."""
    listening = _listening_at(folder / SOCKET)
    listening.set_inheritable(True)
    with contextlib.suppress(OSError):  # it leads a session already
        os.setsid()
    os.execve(sys.executable, _command(listening, os.getppid(), program), environment)  # noqa: S606


def _command(listening: socket.socket, parent: int, program: str) -> list[str]:
    server = [sys.executable, "-u", "-m", "quantuner.distributed.forkserver"]
    return [*server, str(listening.fileno()), str(parent), program]


def client(folder: Path, program: str, *arguments: str) -> list[str]:
    """The command of a rank that the server in `folder` forks. No site, since it needs no package."""
    return [sys.executable, "-I", "-S", forked.__file__, str(folder / SOCKET), program, *arguments]


def _listening_at(path: Path) -> socket.socket:
    """Only this user can connect."""
    path.unlink(missing_ok=True)  # of a server that was there before, in a container that was started again
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    umask = os.umask(0o177)
    try:
        listening.bind(str(path))
        listening.listen(_WAITING)
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(umask)
    return listening
