"""The host processes of the cluster: started, found again by a later command, and ended by id."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.cgroups import adopt
from tests.cluster.errors import ClusterError, tail
from tests.cluster.layout import Layout
from tests.cluster.system import SEARCH_PATH, holds_within

STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Daemon:
    """A long-running part of the cluster and how it is started."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def started_at(pid: int) -> str | None:
    """The start time of a living process in clock ticks since boot, or None.

    Together with the id it names one process for good: an id alone is given out again.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in parentheses and may hold spaces: count from its end.
    fields = stat.rpartition(")")[2].split()
    state, threads, start = fields[0], int(fields[17]), fields[19]
    # A killed process whose first thread has ended holds its files and ports until its last one has.
    return None if state in "ZX" and threads <= 1 else start


class Processes:
    """The daemons whose records lie in the state folder."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def names(self) -> list[str]:
        """Every daemon that was started and not yet stopped, living or dead."""
        return sorted(path.name for path in self._layout.processes.glob("*"))

    def pid(self, name: str) -> int | None:
        """The id of the daemon's process, or None when it is not alive."""
        try:
            record = json.loads((self._layout.processes / name).read_text())
            pid, start = int(record["pid"]), record["start"]
        except (FileNotFoundError, ValueError, KeyError):
            return None
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return pid if start is not None and started_at(pid) == start else None

    def log(self, name: str) -> Path:
        return self._layout.logs / f"{name}.log"

    def start(self, daemon: Daemon) -> None:
        """Start the daemon unless it runs already."""
        if self.pid(daemon.name) is not None:
            return
        self._layout.logs.mkdir(parents=True, exist_ok=True)
        self._layout.processes.mkdir(parents=True, exist_ok=True)
        with self.log(daemon.name).open("ab") as log:
            process = subprocess.Popen(
                daemon.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": SEARCH_PATH, **daemon.environment},
                start_new_session=True,
            )
        # Outliving this command is the daemon's purpose; the record below is what ends it.
        process.returncode = 0
        adopt(process.pid)
        record = {"pid": process.pid, "start": started_at(process.pid)}
        (self._layout.processes / daemon.name).write_text(json.dumps(record))

    def stop(self, *names: str, sig: signal.Signals = signal.SIGTERM) -> None:
        """End the daemons and forget them; one that outlasts its signal is killed."""
        self._signal(names, sig)
        if not holds_within(STOP_SECONDS, lambda: not any(map(self.pid, names))):
            self._signal(names, signal.SIGKILL)
            if not holds_within(STOP_SECONDS, lambda: not any(map(self.pid, names))):
                left = {name: self.pid(name) for name in names if self.pid(name)}
                raise ClusterError(f"processes that do not end even when killed: {left}")
        for name in names:
            (self._layout.processes / name).unlink(missing_ok=True)

    def expect_alive(self, name: str) -> None:
        """Raise with the end of its log when the daemon has ended by itself."""
        if self.pid(name) is None:
            raise ClusterError(f"{name} ended by itself; its log ends\n{tail(self.log(name))}")

    def _signal(self, names: tuple[str, ...], sig: signal.Signals) -> None:
        for name in names:
            if (pid := self.pid(name)) is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, sig)
