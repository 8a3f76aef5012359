"""A process that was forked becomes what mpirun meant to start; ends with the one it belongs to."""

import contextlib
import ctypes
import marshal
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
SHOWN_AS = "rank"
"""In ps and top, where its command is the fork server's."""
OOM_SCORE = 50
"""Thousandths of the memory there is, by which it counts as larger."""


@dataclass(frozen=True)
class Order:
    """What a rank is to be; as `forked.py` writes it."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    umask: int
    processors: tuple[int, ...]
    python: str
    """Executable and version."""


def read_order(file: int) -> Order:
    """Closes the file."""
    with os.fdopen(file, "rb") as lines:
        lines.seek(0)
        return Order(**marshal.load(lines))  # noqa: S302 (of a process of this user)


def die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent, which has this number, ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before
        os.kill(os.getpid(), signal.SIGKILL)


def become(order: Order, streams: Sequence[int], program: ModuleType, added: Mapping[str, str]) -> None:
    """Takes on arguments, environment, folder and streams (standard input, output, error), as after an exec.

    `added` are variables that libraries have set when they were imported.
    """
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update({**added, **order.environment})
    os.umask(order.umask)
    os.chdir(order.folder)
    if os.sched_getaffinity(0) != set(order.processors):
        with contextlib.suppress(OSError):  # they were taken from the pod meanwhile
            os.sched_setaffinity(0, order.processors)
    sys.argv = [str(program.__file__), *order.arguments]
    if not sys.flags.safe_path:
        sys.path[0] = order.folder
    # A rank that became one by itself sends objects whose classes are __main__'s.
    sys.modules["__main__"] = program
    _draw_other_numbers()
    tempfile.tempdir = None  # TMPDIR may name another one
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(SHOWN_AS)
        # Where memory ends, the rank that takes it is to go and not the server of all, which begins larger.
        score = Path("/proc/self/oom_score_adj")
        score.write_text(str(min(1000, int(score.read_text()) + OOM_SCORE)))


def _draw_other_numbers() -> None:
    """Than other forks, where libraries begin with a seed by chance; Python's own `random` does so by itself."""
    numpy_random, torch = sys.modules.get("numpy.random"), sys.modules.get("torch")
    if numpy_random is not None:
        numpy_random.seed()
    if torch is not None:
        torch.default_generator.seed()  # the CPU's; those of GPUs begin with one number
