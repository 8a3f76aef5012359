"""Other hosts of this computer (127.0.0.2 and on) that greet as sshd does, while a test wants them to."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from quantuner.distributed import hosts

CONNECT_SECONDS = 30.0
"""Never waited for in a test that passes."""


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A free one instead of the image's, which other tests at this moment may have.

    A host that answers may have to wait for a processor before it does; one that has nobody there refuses at once.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        number: int = server.getsockname()[1]
    monkeypatch.setattr(hosts, "SSH_PORT", number)
    monkeypatch.setattr(hosts, "CONNECT_SECONDS", CONNECT_SECONDS)
    return number


@contextlib.contextmanager
def answering_host(name: str, port: int) -> Iterator[threading.Semaphore]:
    """The host greets whoever asks, inside of the block; gives a count of those that were greeted."""
    greeted = threading.Semaphore(0)

    def greet(server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:  # shut down
                return
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"SSH-2.0-test\r\n")
            greeted.release()

    with socket.create_server((name, port)) as server:
        thread = threading.Thread(target=greet, args=(server,))
        thread.start()
        try:
            yield greeted
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
