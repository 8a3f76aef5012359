"""Ranks on two hosts under a real mpirun: a second host is this computer again, behind what stands for ssh.

Its daemon and ranks are below one process, and end as a pod's processes do: all at once, when the first ends.
"""

import os
import shlex
import signal
import socket
import subprocess
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from quantuner.api.journal import Finished, History
from quantuner.distributed import mpirun, starts
from quantuner.distributed.hosts import Host, Returning
from quantuner.distributed.journal import JOURNAL_FILE, read_lines
from quantuner.distributed.losses import Losses
from quantuner.distributed.processes import Launch, Processes
from quantuner.distributed.starts import Limits, Starts
from quantuner.distributed.supervisor import Supervisor
from quantuner.distributed.told import Stop
from tests.unit.distributed.sshd import answering_host, port

__all__ = ["port"]
REPOSITORY = Path(__file__).parents[3]
SECONDS = 60
HOSTS = (Host(socket.gethostname()), Host("127.0.0.2", 2))
SSH = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do case "$1" in -p) shift 2 ;; *) shift ;; esac; done
shift  # the host
exec setsid sh -c "echo \\$\\$ > FIRST; $*"
"""


def on_two_hosts(folder: Path, program: str, *arguments: str, hosts: Sequence[Host] = HOSTS) -> Launch:
    """A start of rank 0 here and of two ranks there; the other host's first process is told in `folder/first`."""
    return commands_on_two_hosts(folder, mpirun.python("-c", program, *arguments), hosts)


def commands_on_two_hosts(folder: Path, command: Sequence[str], hosts: Sequence[Host] = HOSTS) -> Launch:
    ssh = folder / "ssh"
    ssh.write_text(SSH.replace("FIRST", shlex.quote(str(folder / "first"))))
    ssh.chmod(0o755)
    launch = mpirun.on_hosts(hosts, folder / "hostfile", command)
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    ours = {"PRTE_MCA_plm_ssh_agent": str(ssh), "PYTHONPATH": f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}"}
    return Launch(launch.command, {**launch.environment, **root, **ours})


def test_hosts_are_filled_one_after_the_other_and_rank_0_is_on_the_first(tmp_path: Path) -> None:
    program = "import os; print(*(os.environ[f'OMPI_COMM_WORLD_{name}'] for name in ('RANK', 'LOCAL_RANK', 'SIZE')))"
    launch = on_two_hosts(tmp_path, program)
    environment = {**os.environ, **launch.environment}
    done = subprocess.run(launch.command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 0 3", "1 0 3", "2 1 3"]


RANK = """
import pathlib, sys, time
from quantuner.api.journal import Finished, Outcome
from quantuner.distributed.communicator import MpiWorld
from quantuner.distributed.journal import JournalFolder
from tests.unit.records import launched, told
comm, folder = MpiWorld(), pathlib.Path(sys.argv[1])
journal = JournalFolder(folder) if comm.rank == 0 else None
if journal is None and not (folder / "again").exists():
    time.sleep(600)
elif journal is not None:
    journal.append(launched(ranks=comm.size))
    if journal.history.trials:
        journal.append(Finished(outcome=Outcome.EXHAUSTED, best=0, accuracy=0.9, artifact="", time=""))
    else:
        journal.append(told(0, 0.9))
        (folder / "pipe").write_text("they search")
        time.sleep(600)
"""


def test_a_drained_worker_is_a_loss_at_once_and_the_search_goes_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    def drain() -> None:
        (tmp_path / "pipe").read_text()
        _end_with_all_below(int((tmp_path / "first").read_text()))

    count = 0

    def launch(_: Stop) -> Launch:
        nonlocal count
        count += 1
        if count > 1:
            (tmp_path / "again").touch()
        return on_two_hosts(tmp_path, RANK, str(tmp_path))

    drainer = threading.Thread(target=drain, daemon=True)
    drainer.start()
    assert Supervisor(tmp_path, launch, relay=False).run() == 0
    drainer.join(SECONDS)
    found = History.replay(read_lines(tmp_path / JOURNAL_FILE))
    assert count == 2
    assert [one.ranks for one in found.launches] == [3, 3]
    assert len(found.trials) == 1
    assert isinstance(found.end, Finished)


def test_a_search_that_went_on_without_a_host_has_it_again_when_it_is_back(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "FIRST_PATIENCE_SECONDS", 0.0)
    os.mkfifo(tmp_path / "pipe")
    ended = threading.Event()

    def come_back() -> None:
        (tmp_path / "pipe").read_text()
        with answering_host(HOSTS[1].name, port):
            ended.wait(SECONDS)

    def launch(hosts: Sequence[Host]) -> Launch:
        if len(hosts) > 1:
            (tmp_path / "again").touch()
        return on_two_hosts(tmp_path, RANK, str(tmp_path), hosts=hosts)

    other = threading.Thread(target=come_back, daemon=True)
    other.start()
    both = Starts(tmp_path, lambda: HOSTS, launch, Limits(), Returning(steady=0.2, away=0.1))
    assert Supervisor(tmp_path, both, relay=False).run() == 0
    ended.set()
    other.join(SECONDS)
    found = History.replay(read_lines(tmp_path / JOURNAL_FILE))
    assert [one.ranks for one in found.launches] == [1, 3]
    assert len(found.trials) == 1
    assert isinstance(found.end, Finished)


SEARCH = """
import functools, pathlib, sys, time
from quantuner.distributed import hosts
from quantuner.distributed.communicator import MpiWorld, RanksLostError
from quantuner.distributed.losses import Losses
from quantuner.distributed.master import Master
from quantuner.distributed.slave import Slave
comm, folder = MpiWorld(), pathlib.Path(sys.argv[1])
hosts.SSH_PORT = int(sys.argv[2])
if comm.rank:
    def evaluate(index):
        (folder / f"begun{index}").touch()
        if all((folder / f"begun{one}").exists() for one in (1, 2)):
            (folder / "pipe").write_text("they search")
        time.sleep(600)
    Slave(comm, evaluate).run()
else:
    answer = functools.partial(hosts.all_answer, hosts.read_hostfile(folder / "hostfile"))
    try:
        Master(comm, losses=Losses(folder), hosts_answer=answer).run(1, [1, 2], lambda told: False)
    except RanksLostError:
        comm.abort(1)
"""


def test_trials_of_a_host_that_is_gone_are_blamed_by_half(tmp_path: Path, port: int) -> None:
    """As far as rank 0 hears of its ranks before it is ended, since mpirun has ended."""
    os.mkfifo(tmp_path / "pipe")

    def drain() -> None:
        (tmp_path / "pipe").read_text()
        _end_with_all_below(int((tmp_path / "first").read_text()))

    drainer = threading.Thread(target=drain, daemon=True)
    drainer.start()
    Processes(on_two_hosts(tmp_path, SEARCH, str(tmp_path), str(port)), tmp_path, relay=False).wait()
    drainer.join(SECONDS)
    assert not drainer.is_alive()
    assert set(Losses(tmp_path).known.values()) <= {0.5}


def _end_with_all_below(process: int) -> None:
    """As the kernel ends the processes of a PID namespace when its first one ends."""
    children = _children()
    ending = [process]
    for one in ending:
        ending += children[one]
    for one in ending:
        os.kill(one, signal.SIGKILL)


def _children() -> dict[int, list[int]]:
    """By parent, field 4 of /proc/PID/stat; the name before it may hold anything but a closing bracket."""
    found: dict[int, list[int]] = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[int(fields[1])].append(int(stat.parent.name))
    return found
