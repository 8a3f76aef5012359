"""Starts a fork server, and says how mpirun has a rank forked by it."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from quantuner.distributed import forked

PROGRAM = "quantuner.run"
SOCKET = "fork-server"
"""In the workspace of a pod."""
_WAITING = 128  # clients, while the server imports


def start(folder: Path, environment: Mapping[str, str], program: str = PROGRAM) -> subprocess.Popen[bytes]:
    """A server with a socket in `folder`, where clients may wait from now on; it ends with this process.

    Raises `OSError` where there can be no socket or no process.
    """
    with _listening_at(folder / SOCKET) as listening:
        handed = listening.fileno()
        command = [sys.executable, "-u", "-m", "quantuner.distributed.forkserver", str(handed), str(os.getpid())]
        return subprocess.Popen(
            [*command, program], env=environment, pass_fds=[handed], stdin=subprocess.DEVNULL, start_new_session=True
        )


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
