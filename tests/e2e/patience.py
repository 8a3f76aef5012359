"""How long the tests on a cluster wait for anything."""

import time
from collections.abc import Callable

# Many times what anything takes, a whole search too, on two cores that have nothing else to do.
PATIENCE_SECONDS = 300.0
POLL_SECONDS = 0.1


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Polls what cannot be watched."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:.0f} s: {what}"
        time.sleep(POLL_SECONDS)
