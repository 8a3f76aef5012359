"""Every check at once: python -m tests.whole, from the repository's root.

The tests on the cluster wait more than they compute, so those that need none run beside them, in two halves, and lint
beside all.
Each line of a part is printed when it is whole, behind the part's name; a part that fails ends no other. Ctrl-C and
SIGTERM interrupt every part, and wait while it clears up.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.cluster import ClusterError
from tests.cluster.preflight import expect_able_machine

Command = Sequence[str]

ENGINE = "tests/unit/engine"
PYTEST: dict[str, Sequence[str]] = {
    "cluster": ("tests/operator", "tests/e2e"),  # in this order: the first refuse to run beside an installed operator
    "engine": (ENGINE,),
    "unit": ("tests/unit", "tests/models", "tests/chart"),  # the chart's last: they want Helm, which is built meanwhile
}
"""Folders of tests by the part that runs them."""
AHEAD = "images"
"""Where this head start fails, the tests that wait for it try again: it alone fails nothing."""
CLEARING_UP_SECONDS = 180.0  # of an installed release, and namespaces


@dataclass(frozen=True)
class Ended:
    code: int
    seconds: float
    says: str
    """Its last line: of pytest, how many tests passed."""


def parts(python: str = sys.executable) -> dict[str, Command]:
    """The commands by name. What the machine cannot run pytest says itself."""
    pytest = [python, "-m", "pytest", "--durations=10", "--durations-min=5"]
    found: dict[str, Command] = {
        name: [*pytest, "-o", f"cache_dir=.pytest_cache/{name}", *folders] for name, folders in PYTEST.items()
    }
    found["unit"] = [*found["unit"], "--ignore", ENGINE]
    found["lint"] = ["make", "--no-print-directory", "lint"]
    with contextlib.suppress(ClusterError):
        expect_able_machine()
        found[AHEAD] = [python, "-m", "tests.cluster", "images"]  # the tests wait for its lock
    return found


async def run(commands: Mapping[str, Command]) -> dict[str, Ended]:
    """Runs all of them beside each other; interrupts them where it is cancelled."""
    ended: dict[str, Ended] = {}
    async with asyncio.TaskGroup() as group:
        for name, command in commands.items():
            group.create_task(_run(name, command, max(map(len, commands)), ended))
    return ended


async def _run(name: str, command: Command, width: int, ended: dict[str, Ended]) -> None:
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=2**24,
        start_new_session=True,  # a terminal would interrupt it, too: the second time ends pytest's clearing up
    )
    told = asyncio.ensure_future(_told(process, f"{name:{width}} │ "))
    try:
        line = await asyncio.shield(told)
    except asyncio.CancelledError:
        await _interrupt(process, told)
        raise
    ended[name] = Ended(await process.wait(), time.monotonic() - started, line.strip("= "))


async def _told(process: asyncio.subprocess.Process, before: str) -> str:
    """Prints what it says, line by line; returns its last one."""
    assert process.stdout is not None
    line = ""
    async for read in process.stdout:
        line = read.decode(errors="replace").rstrip()
        sys.stdout.write(f"{before}{line}\n")
        sys.stdout.flush()
    return line


async def _interrupt(process: asyncio.subprocess.Process, told: asyncio.Future[str]) -> None:
    """Ends it as a terminal would, and if that takes too long at once."""
    try:
        for number in (signal.SIGINT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLEARING_UP_SECONDS):
                    await asyncio.shield(told)
                    await process.wait()
                    return
    except asyncio.CancelledError:  # asked a second time
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise


def summary(ended: Mapping[str, Ended]) -> str:
    """A line for each part."""
    width = max(map(len, ended))
    return "".join(f"{name:{width}} {_described(one)}\n" for name, one in ended.items())


def _described(one: Ended) -> str:
    outcome = f"FAILED ({one.code})" if one.code else "passed"
    return f"{outcome} after {one.seconds:.0f} s: {one.says}"


async def _main() -> int:
    task = asyncio.ensure_future(run(parts()))
    for number in (signal.SIGINT, signal.SIGTERM):  # the first, too, where a shell had it ignored
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        ended = await task
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    sys.stdout.write(f"\n{summary(ended)}")
    return int(any(one.code for name, one in ended.items() if name != AHEAD))


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
