"""The worker pod's first process, as a process; what stands for sshd ends at SIGTERM as it does, or at a line."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.distributed.forks import PROGRAM, SECONDS, Forks, ended, ending, line

BASH = shutil.which("bash") or "/bin/bash"


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[Forks]:
    forks = Forks(tmp_path)
    yield forks
    forks.close()


def worker(forks: Forks, **variables: str) -> subprocess.Popen[str]:
    """With these variables beside those that ranks are given."""
    command = [sys.executable, "-m", "quantuner.distributed.worker", "--workspace", str(forks.folder)]
    command += ["--program", "program", *(word for name in forks.environment for word in ("--variable", name))]
    command += ["--", BASH, "-c", 'echo "$$ $0 $1"; read', "sshd", "-De"]
    environment = forks.environment | variables
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_the_pods_first_process_becomes_sshd_and_everything_ends_with_it(forks: Forks) -> None:
    with worker(forks) as first:
        assert line(first) == f"{first.pid} sshd -De"
        rank = int(line(client := forks.ask("wait")))
        with ending(rank):
            first.terminate()
        assert ended(client)[0] == -9


def test_sshd_is_there_before_anything_is_imported(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "imports")
    forks = Forks(tmp_path, f"open({str(tmp_path / 'imports')!r}).read()\n{PROGRAM}")
    with worker(forks) as first:
        assert line(first) == f"{first.pid} sshd -De"
        client = forks.ask("end", "3")
        (tmp_path / "imports").write_text("go on")
        assert ended(client)[:2] == (3, "not flushed, at exit\n")
        first.terminate()
    forks.close()


def test_libraries_are_loaded_without_variables_that_ranks_are_not_given(forks: Forks) -> None:
    """A user's image may set some, and sshd passes none of them on."""
    with worker(forks, MKL_OF_THE_IMAGE="0") as first:
        line(first)
        assert ended(forks.ask("end", "3"))[:2] == (3, "not flushed, at exit\n")
        first.terminate()


def test_without_a_server_there_is_a_worker_still(forks: Forks) -> None:
    forks.folder = forks.folder / "none"
    with worker(forks) as first:
        assert line(first) == f"{first.pid} sshd -De"
        first.communicate("", timeout=SECONDS)
