"""Fresh processes that are forks of one which has imported torch: two processor seconds less for each test.

What serves in them, what they are asked and how they end is as in any search; `tests/unit/engine/test_fresh.py` and the
searches of `tests/models` and `tests/e2e` begin them as users do.
"""

import multiprocessing
import os
import subprocess
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import cast

from quantuner.engine import fresh, serving

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.unit.fresh_imports"])


class _Forked:
    """What a `FreshProcess` asks of a `subprocess.Popen`."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        self.pid, self.kill = process.pid, process.kill

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("a fork", timeout or 0.0)
        return code


def _serve(connection: Connection) -> None:
    serving.main(os.dup(connection.fileno()))


def begin() -> fresh.Started:
    """In place of `quantuner.engine.fresh.begin`."""
    ours, theirs = multiprocessing.Pipe()
    process = _FORKS.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    return fresh.Started(cast("subprocess.Popen[bytes]", _Forked(process)), ours)
