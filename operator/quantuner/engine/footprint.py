"""Peak memory of a piece of work, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

MEBI = 2**20
_RESET_PEAK = "5"  # written to clear_refs it sets the peak to what is resident now (proc_pid_clear_refs(5))


class Footprint:
    """Context that measures `mebi`, the most memory in MiB that was resident in this process inside it.

    Raises `OSError` where the kernel does not tell: the objective footprint needs Linux.
    """

    def __init__(self, wanted: bool = True) -> None:
        self._wanted = wanted
        self.mebi = 0.0

    def __enter__(self) -> Footprint:
        if self._wanted:
            Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._wanted:
            self.mebi = _peak_bytes() / MEBI


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
