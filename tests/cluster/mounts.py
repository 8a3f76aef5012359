"""The mount table of the machine, and taking mounts away."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.cluster.system import run


class Mount(NamedTuple):
    target: str
    kind: str


def parse(table: str) -> list[Mount]:
    """The mounts of a table in the form of /proc/mounts, in order of mounting."""
    rows = [line.split(" ") for line in table.splitlines() if line]
    return [Mount(_unescape(row[1]), row[2]) for row in rows]


def _unescape(text: str) -> str:
    # The kernel writes white space and backslashes as three octal digits.
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def below(table: Iterable[Mount], roots: Iterable[Path]) -> list[str]:
    """The mount points at or below the roots, the one mounted last first."""
    prefixes = [str(root) for root in roots]
    targets = [mount.target for mount in table]
    return [
        target
        for target in reversed(targets)
        if any(target == prefix or target.startswith(prefix + "/") for prefix in prefixes)
    ]


def mounted() -> list[Mount]:
    return parse(Path("/proc/mounts").read_text())


def unmount_below(*roots: Path) -> None:
    """Unmount everything at or below the roots, also what a dead process still holds."""
    for target in below(mounted(), roots):
        run(["umount", "--lazy", target])
