"""A process that has imported what a rank imports: a rank is then a fork of it, and no import of some seconds.

`multiprocessing.forkserver` is the idea. Here mpirun starts the ranks: each as `forked.py`, which asks for a fork over
a socket and stands for it. A fork is killed when its client is, and when the server is, and what it has started when
it ends. The server starts no thread, has not begun MPI or CUDA, and knows nothing of the task. Whatever becomes of one
rank and its client, the server goes on for the others.
"""

import contextlib
import functools
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

from quantuner.distributed.asked import close, received, refuse, tell, user
from quantuner.distributed.becoming import Order, become, die_with
from quantuner.distributed.forked import STARTED
from quantuner.distributed.library_variables import differing


def main() -> int:
    listening, parent, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    die_with(parent)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is beside it with both ignored
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    os.close(os.pidfd_open(os.getpid()))  # a system that refuses it gets no server, rather than forks that fail
    server, environment = os.getpid(), dict(os.environ)
    waiting = socket.socket(fileno=listening)
    try:
        program = _imported(name)
    except (Exception, SystemExit) as error:
        refuse(waiting, f"it cannot import {name}: {error!r}")
        raise
    order, streams = Server(waiting, environment).serve()
    die_with(server)
    added = {name: value for name, value in os.environ.items() if name not in environment}
    become(order, streams, program, added)
    code: int = program.main()
    return code


def _imported(name: str) -> ModuleType:
    """The program, and whatever it says it will import later; not to be looked through, and so copied, by forks."""
    gc.disable()
    program = importlib.import_module(name)
    prepare = getattr(program, "prepare_to_fork", None)
    if prepare is not None:
        prepare()
    gc.collect()
    gc.freeze()
    gc.enable()
    return program


@dataclass(frozen=True)
class _Rank:
    process: int
    ended: int
    """A pidfd."""
    client: socket.socket


Fork = tuple[Order, list[int]]
"""What a process that was forked has to become: its order and its streams."""


class Server:
    """Everything that happens is an event of one loop; a callback gives a `Fork` in the process that is one."""

    def __init__(self, listening: socket.socket, environment: Mapping[str, str]) -> None:
        """`environment` is that under which libraries were loaded."""
        self._listening, self._environment = listening, environment
        self._events = selectors.DefaultSelector()
        self._events.register(listening, selectors.EVENT_READ, self._accept)

    def serve(self) -> Fork:
        """Returns in forks alone, who have none of the server's connections."""
        while True:
            event = self._events.select()[0][0]  # one at a time, since it may end what the next one is of
            fork: Fork | None = event.data()
            if fork is not None:
                self._close()
                return fork

    def _close(self) -> None:
        for key in list(self._events.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
            else:
                os.close(key.fd)
        self._events.close()

    def _accept(self) -> None:
        try:
            client, _ = self._listening.accept()
        except OSError:  # it has gone
            return
        if user(client) != os.getuid():
            client.close()
            return
        self._events.register(client, selectors.EVENT_READ, functools.partial(self._heed, client))

    def _heed(self, client: socket.socket) -> Fork | None:
        """What a client asks for."""
        streams, order = received(client)
        if order is None:
            close(streams)
            self._drop(client)
            return None
        process = _forked(order, self._environment)
        if process == 0:
            os.setpgid(0, 0)
            return order, streams
        close(streams)
        if isinstance(process, str):
            tell(client, process.encode())
            self._drop(client)
        else:
            self._watch(process, client)
        return None

    def _watch(self, process: int, client: socket.socket) -> None:
        with contextlib.suppress(OSError):  # here and there, so that it is done whoever comes first
            os.setpgid(process, process)
        rank = _Rank(process, os.pidfd_open(process), client)
        self._events.modify(client, selectors.EVENT_READ, functools.partial(self._relay, rank))
        self._events.register(rank.ended, selectors.EVENT_READ, functools.partial(self._bury, rank))
        tell(client, STARTED)

    def _relay(self, rank: _Rank) -> None:
        """A signal to the rank and the processes it has started; SIGKILL where its client has ended."""
        try:
            message = rank.client.recv(1)
        except OSError:
            message = b""
        if not message:
            self._drop(rank.client)
        _signal(rank, message[0] if message else signal.SIGKILL)

    def _bury(self, rank: _Rank) -> None:
        _signal(rank, signal.SIGKILL)  # what it has started, while the group's number is still its own
        _, status = os.waitpid(rank.process, 0)
        self._events.unregister(rank.ended)
        os.close(rank.ended)
        if rank.client.fileno() >= 0:
            tell(rank.client, str(status).encode())
            self._drop(rank.client)

    def _drop(self, client: socket.socket) -> None:
        self._events.unregister(client)
        client.close()


def _signal(rank: _Rank, number: int) -> None:
    """To a rank that was not waited for yet, and to the processes of its group."""
    for send in (os.killpg, os.kill):  # it may have left its group, and then is the only one that is known
        with contextlib.suppress(OSError):
            send(rank.process, number)
            return


def _forked(order: Order, environment: Mapping[str, str]) -> int | str:
    """What fork returns, or why there can be none."""
    refusal = _refusal(order, environment)
    if refusal is not None:
        return refusal
    try:
        return os.fork()
    except OSError as error:
        return f"it cannot fork: {error}"


def _refusal(order: Order, environment: Mapping[str, str]) -> str | None:
    """Why a rank cannot be a fork of this process."""
    if order.python != f"{sys.executable} {sys.version}":
        return f"it is another Python ({sys.executable} {sys.version})"
    names = differing(environment, order.environment)
    return f"libraries were loaded there with another {', '.join(names)}" if names else None


if __name__ == "__main__":
    sys.exit(main())
