"""Running the machine's own commands, and waiting for what they bring about."""

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.errors import TAIL_LINES, ClusterError

POLL_SECONDS = 0.1

# A shell that became root with a plain `su` has no sbin in its PATH.
SEARCH_PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/local/go/bin"


def find(command: str) -> str | None:
    """The path of a command, or None where the machine has none."""
    return shutil.which(command, path=SEARCH_PATH)


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float | None = None,
) -> str:
    """The standard output of a command that succeeded.

    Raises ClusterError with the end of what it printed when it fails or takes too long.
    """
    words = [str(word) for word in argv]
    program = find(words[0])
    if program is None:
        raise ClusterError(f"the command {words[0]!r} is needed and this machine has none")
    try:
        done = subprocess.run(
            [program, *words[1:]],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            cwd=cwd,
            env={**os.environ, "PATH": SEARCH_PATH, **(environment or {})},
            timeout=timeout_seconds,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"no end after {timeout_seconds} s: {' '.join(words)}") from None
    if done.returncode != 0:
        printed = (done.stdout + done.stderr).strip().splitlines()[-TAIL_LINES:]
        text = "\n".join(f"    {line}" for line in printed)
        raise ClusterError(f"exit status {done.returncode}: {' '.join(words)}\n{text}")
    return done.stdout


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Hold the lock `file`, so that two commands take turns."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def holds_within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether the condition comes to hold before the time is up."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
