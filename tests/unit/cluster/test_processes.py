"""Which process a record means, and that no other is ever ended."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout
from tests.cluster.processes import Daemon, Processes, started_at
from tests.cluster.system import holds_within


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(state=tmp_path / "state", cache=tmp_path / "cache")


@pytest.fixture
def processes(layout: Layout) -> Iterator[Processes]:
    started = Processes(layout)
    yield started
    started.stop(*started.names())


def test_a_started_daemon_is_found_by_another_command_and_ended(layout: Layout, processes: Processes) -> None:
    processes.start(Daemon("sleeper", ("sleep", "60")))
    pid = Processes(layout).pid("sleeper")
    assert pid is not None
    Processes(layout).stop("sleeper")
    assert started_at(pid) is None
    assert Processes(layout).names() == []


FIRST_THREAD_ENDS = """
import ctypes, platform, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)  # exit, of this thread alone
"""


def test_a_process_whose_first_thread_has_ended_lives_until_its_last_has(processes: Processes) -> None:
    processes.start(Daemon("headless", (sys.executable, "-c", FIRST_THREAD_ENDS)))
    pid = processes.pid("headless")
    assert pid is not None
    assert holds_within(10.0, lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    assert started_at(pid) is not None
    processes.stop("headless")
    assert started_at(pid) is None


def test_a_process_that_got_the_id_of_a_dead_daemon_is_not_taken_for_it(layout: Layout, processes: Processes) -> None:
    layout.processes.mkdir(parents=True)
    record = {"pid": os.getpid(), "start": "1"}
    (layout.processes / "impostor").write_text(json.dumps(record))
    assert processes.pid("impostor") is None
    processes.stop("impostor")
    assert processes.names() == []


@pytest.mark.parametrize("record", ["", "{", "{}", '{"pid": 1}', '{"pid": 4194304, "start": null}'])
def test_a_record_without_a_start_time_means_no_process(layout: Layout, processes: Processes, record: str) -> None:
    layout.processes.mkdir(parents=True)
    (layout.processes / "torn").write_text(record)
    assert processes.pid("torn") is None


def test_a_daemon_that_ends_by_itself_is_reported_with_the_end_of_its_log(processes: Processes) -> None:
    processes.start(Daemon("broken", ("sh", "-c", "echo no such flag; exit 2")))
    assert holds_within(10, lambda: processes.pid("broken") is None)
    with pytest.raises(ClusterError, match="broken ended by itself; its log ends\n    no such flag"):
        processes.expect_alive("broken")
