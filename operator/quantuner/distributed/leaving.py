"""A rank that leaves a search before its end: nobody waits for it in there, and what was sent is not the next one's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from quantuner.api.errors import SearchError
from quantuner.distributed.communicator import Messages
from quantuner.distributed.protocol import End, Gone

NO_EPOCH = 0
"""Of an end that is no master's; theirs count from 1."""
_LAST = "last"


@contextlib.contextmanager
def leaving(comm: Messages) -> Iterator[None]:
    """Around a rank's part of a search, master or slave: the others leave theirs where it raises `SearchError`.

    Rank 0 ends the loops of its slaves, also of those that come to it later; another rank's error is raised by the
    master. Nobody is waited for, since ranks may be lost.
    """
    try:
        yield
    except SearchError as error:
        for rank in _others(comm):
            comm.send(Gone(error) if comm.rank else End(NO_EPOCH), to=rank)
        raise


def forget(comm: Messages) -> None:
    """Takes what was sent in a search that this rank has left; all ranks call it, when all have left."""
    for rank in _others(comm):
        comm.send(_LAST, to=rank)
    for rank in _others(comm):
        message: Any = None
        while message != _LAST:
            received = comm.receive(source=rank)
            message = received[1] if received is not None else None


def _others(comm: Messages) -> range:
    """With whom a rank has messages: the master with all slaves, each of them with it."""
    return range(1) if comm.rank else range(1, comm.size)
