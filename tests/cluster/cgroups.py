"""The control group that holds every process of the cluster, daemons and pods alike.

It is what makes a killed run's processes findable: container shims and what runs in pods write no
pid file, but none of them can leave the group it was started in.
"""

import os
import signal
from contextlib import suppress
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.layout import CGROUP
from tests.cluster.mounts import Mount, mounted
from tests.cluster.system import holds_within

KILL_SECONDS = 10.0
CONTROLLERS = "+cpu +cpuset +memory +pids +io"


def hierarchies(table: list[Mount]) -> list[Path]:
    """The mount points of the control group file systems."""
    return [Path(m.target) for m in table if m.kind in ("cgroup", "cgroup2")]


def _groups() -> list[Path]:
    return [root / CGROUP for root in hierarchies(mounted()) if (root / CGROUP).is_dir()]


def create() -> None:
    """Make the group in every hierarchy: the kubelet wants its root to exist in each of them."""
    for root in hierarchies(mounted()):
        with suppress(OSError):
            (root / "cgroup.subtree_control").write_text(CONTROLLERS)
        (root / CGROUP / "daemons").mkdir(parents=True, exist_ok=True)
        for group in (root / CGROUP, root / CGROUP / "daemons"):
            for setting in ("cpuset.cpus", "cpuset.mems"):
                # Version 1 creates these empty and then refuses every process.
                if (group / setting).exists() and root.name.startswith("cpuset"):
                    (group / setting).write_text((group.parent / setting).read_text())


def adopt(pid: int) -> None:
    """Put a daemon into the group, in one hierarchy: limits are the pods' affair alone."""
    group = tracking_group()
    if group is not None:
        (group / "daemons" / "cgroup.procs").write_text(str(pid))


def tracking_group() -> Path | None:
    """The cluster's group in the hierarchy by which its processes are found."""
    groups = _groups()
    by_name = {group.parent.name: group for group in groups}
    return by_name.get("pids") or (groups[0] if groups else None)


def members() -> set[int]:
    """The ids of all processes of the cluster."""
    found: set[int] = set()
    for group in _groups():
        for procs in group.rglob("cgroup.procs"):
            with suppress(OSError):
                found.update(int(pid) for pid in procs.read_text().split())
    return found


def end_members() -> None:
    """Kill every process of the cluster that is still there."""

    def emptied() -> bool:
        pids = members()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    if not holds_within(KILL_SECONDS, emptied):
        raise ClusterError(f"processes that do not end even when killed: {sorted(members())}")


def remove() -> None:
    """Remove the group from every hierarchy, innermost first."""
    for group in _groups():
        for folder, _, _ in os.walk(group, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
