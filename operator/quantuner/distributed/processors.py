"""What a process may compute on: CPUs by affinity and cgroup quota, devices by its slot."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("sys/fs/cgroup")
LOCAL_RANK, LOCAL_SIZE = "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"
DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Processors:
    """The CPUs of one rank's host, as that rank may use them."""

    host: str
    cpus: frozenset[int]
    """Numbers of those that the scheduler may run it on."""
    quota: float | None = None
    """CPU seconds a second that its cgroup allows; None without a limit."""

    @classmethod
    def here(cls, host: str) -> Processors:
        return cls(host, _affinity(), cgroup_quota())


def _affinity() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))  # a system without affinity has no cgroups either


def share(ranks: Sequence[Processors]) -> int:
    """Threads that every one of these ranks can compute with: of the host with fewest, at least 1.

    A host's CPUs are those that any of its ranks may run on, so that ranks which are bound to cores of their own and
    ranks which are bound to none are counted alike.
    """
    hosts: dict[str, list[Processors]] = defaultdict(list)
    for one in ranks:
        hosts[one.host].append(one)
    return max(1, min(math.floor(_usable(those) / len(those)) for those in hosts.values()))


def _usable(ranks: Sequence[Processors]) -> float:
    quotas = [one.quota for one in ranks if one.quota is not None]
    return min([len(frozenset().union(*(one.cpus for one in ranks))), *quotas])


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """CPUs that the cgroup of this process may use, or the tightest above it; None without a limit.

    Source: the kernel's Documentation/admin-guide/cgroup-v2.rst (cpu.max) and scheduler/sched-bwc.rst (version 1).
    """
    return min(_quotas(root), default=None)


def _quotas(root: Path) -> Iterator[float]:
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:  # hierarchy:controllers:path; of version 2, 0::path
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            mounts, read = [CGROUPS, CGROUPS / "unified"], _quota_2
        elif "cpu" in controllers.split(","):
            mounts, read = [CGROUPS / controllers, CGROUPS / "cpu"], _quota_1
        else:
            continue
        for mount in mounts:
            for folder in _upwards(root / mount, path):
                found = read(folder)
                if found is not None:
                    yield found


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The cgroup's folder and those above it. In a container the path may be the host's, and the mount its own."""
    folder = mount / path.strip("/")
    while folder != mount and mount in folder.parents:
        yield folder
        folder = folder.parent
    yield mount


def _quota_2(folder: Path) -> float | None:
    return _ratio(*_words(folder / "cpu.max"))


def _quota_1(folder: Path) -> float | None:
    return _ratio(*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us"))


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split()
    except OSError:
        return []


def _ratio(*words: str) -> float | None:
    """Quota and period in microseconds; a quota of `max` or -1 is none."""
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return None
    quota, period = map(int, words)
    return quota / period if quota and period else None


def take_devices(environment: MutableMapping[str, str], root: Path = Path("/")) -> None:
    """Leaves this rank the devices of its slot, before CUDA looks; without devices or MPI nothing changes."""
    if LOCAL_RANK not in environment:
        return
    devices = _devices(environment, root)
    if devices:
        own = slot_devices(devices, int(environment[LOCAL_RANK]), int(environment[LOCAL_SIZE]))
        environment[DEVICES] = ",".join(own)


def slot_devices(devices: Sequence[str], local_rank: int, local_size: int) -> Sequence[str]:
    """Devices of one of a host's `local_size` ranks: an equal part in order; where there are too few, one, shared."""
    each = len(devices) // local_size
    if not each:
        return [devices[local_rank % len(devices)]]
    return devices[local_rank * each : (local_rank + 1) * each]


def _devices(environment: Mapping[str, str], root: Path) -> list[str]:
    """Those that CUDA would see: as the user chose, else as the driver's files name them."""
    if DEVICES in environment:
        return [name.strip() for name in environment[DEVICES].split(",") if name.strip()]
    files = (root / "dev").glob("nvidia*")
    return [str(number) for number in range(sum(1 for file in files if re.fullmatch(r"nvidia\d+", file.name)))]
