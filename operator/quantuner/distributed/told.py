"""An event that a signal's handler may set."""

import math
import time
from typing import Protocol

LOOK_SECONDS = 0.05


class Stop(Protocol):
    """What those see who wait and may have to hurry: `threading.Event`, and `Told`."""

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool: ...


class Told:
    """As `threading.Event`, which waits for its own lock for ever where a handler sets it in the middle of a `wait`.

    Without any lock, so it looks from time to time. `queue.SimpleQueue`, whose `put` may interrupt anything, is no way
    out: its `get` with a timeout that a signal interrupts may never return (CPython 3.11.7).
    """

    def __init__(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it is set, at the latest after so many seconds."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not self._is_set and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(LOOK_SECONDS, left))
        return self._is_set
