"""The hosts of a launch: which of them answer, and when it is worth starting anew since others are back."""

import itertools
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from quantuner.distributed.told import Stop

SSH_PORT = 2222  # sshd_config of the tuner image
CONNECT_SECONDS = 1.0  # a pod that is gone leaves an address where nobody refuses
ASKED_AT_ONCE = 64  # hosts; one after the other, silent ones would take longer than a pod has to end
WAITING_SECONDS = 0.1  # between two rounds while nobody computes
AWAY_SECONDS = 2.0  # between two rounds while ranks compute
STEADY_SECONDS = 10.0  # that a host must have answered before a launch is ended for it; doubled each time
MOST_STEADY_SECONDS = 1200.0


@dataclass(frozen=True)
class Host:
    """One line of a hostfile."""

    name: str
    slots: int = 1
    """Ranks that it takes."""


def read_hostfile(path: Path) -> list[Host]:
    """Hosts of an Open MPI hostfile, in order."""
    lines = (line.split("#")[0].split() for line in path.read_text().splitlines())
    return [_host(*words) for words in lines if words]


def _host(name: str, *settings: str) -> Host:
    slots = dict(setting.partition("=")[::2] for setting in settings).get("slots", "1")
    return Host(name, int(slots))


def answering(hosts: Sequence[Host], stop: Stop, patience: float) -> list[Host]:
    """The hosts whose sshd answers, in order; waits for all of them, but no longer than so many seconds or `stop`.

    The first host is this one and needs no sshd.
    """
    deadline = time.monotonic() + patience
    names = [host.name for host in hosts[1:]]
    with _asking(names) as pool:
        while True:
            there = [True, *pool.map(_answers, names)]
            if all(there) or time.monotonic() > deadline or stop.wait(WAITING_SECONDS):
                return list(itertools.compress(hosts, there))


def all_answer(hosts: Sequence[Host]) -> bool:
    """Whether each does at this moment. Takes a second or two where one is silent."""
    return len(answering(hosts, threading.Event(), 0)) == len(hosts)


class Returning:
    """Hosts that a launch goes on without, and how often others came back before."""

    def __init__(self, *, steady: float = STEADY_SECONDS, away: float = AWAY_SECONDS) -> None:
        self._away = away
        self.steady = steady
        """Seconds that a host must have answered."""

    def await_steady(self, absent: Sequence[Host], ended: threading.Event, is_worth_it: Callable[[], bool]) -> bool:
        """Waits until hosts of these are back for good and a start is worth it; False when `ended` is set before.

        A host is back for good when it has answered at every round for a while; one that has begun to answer later
        is waited for as long again. That while is twice as long each time, so that a host that comes and goes ends
        few launches.
        """
        names = [host.name for host in absent]
        since: dict[str, float] = {}
        with _asking(names) as pool:
            while not ended.wait(self._away):
                now = time.monotonic()
                there = itertools.compress(names, pool.map(_answers, names))
                since = {name: since.get(name, now) for name in there}
                if since and self.are_back([now - began for began in since.values()]) and is_worth_it():
                    self.steady = min(2 * self.steady, MOST_STEADY_SECONDS)
                    return True
        return False

    def are_back(self, seconds: Sequence[float]) -> bool:
        """Of hosts that have answered for so long."""
        return min(seconds) >= self.steady or max(seconds) >= 2 * self.steady


def _asking(names: Sequence[str]) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, min(len(names), ASKED_AT_ONCE)), thread_name_prefix="ask-host")


def _answers(host: str) -> bool:
    try:
        with socket.create_connection((host, SSH_PORT), CONNECT_SECONDS) as connection:
            connection.settimeout(CONNECT_SECONDS)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
