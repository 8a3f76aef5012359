"""What a fork server's clients ask for, and what they are told: messages and files over their connections."""

import contextlib
import os
import socket
import struct
from collections.abc import Iterable

from quantuner.distributed.becoming import Order, read_order
from quantuner.distributed.forked import MESSAGE_BYTES

_HANDED_OVER = 4  # three streams and the order


def received(client: socket.socket) -> tuple[list[int], Order | None]:
    """Streams and order; no order where the client has ended before it asked, or asks for nothing that is known."""
    try:
        _, files, _, _ = socket.recv_fds(client, MESSAGE_BYTES, _HANDED_OVER)
    except OSError:
        return [], None
    if len(files) < _HANDED_OVER:
        return files, None
    *streams, file = files
    try:
        return streams, read_order(file)
    except (OSError, EOFError, ValueError, TypeError):
        return streams, None


def close(files: Iterable[int]) -> None:
    for file in files:
        os.close(file)


def user(client: socket.socket) -> int:
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(user)


def tell(client: socket.socket, message: bytes) -> None:
    with contextlib.suppress(OSError):  # it has ended, which is the next event
        client.send(message)


def refuse(listening: socket.socket, why: str) -> None:
    """Tells those who wait why they are not served, and lets nobody else connect."""
    listening.shutdown(socket.SHUT_RD)
    listening.setblocking(False)
    with contextlib.suppress(OSError):  # nobody waits any more
        while True:
            client, _ = listening.accept()
            with client:
                close(received(client)[0])  # what is left unread would take the answer along
                tell(client, why.encode()[:MESSAGE_BYTES])
