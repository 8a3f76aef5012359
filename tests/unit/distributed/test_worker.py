"""The fork server of a worker pod beside what stands for sshd, which a shell becomes, as in the pod."""

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
    """Its program says when the server imports it, which listens by then."""
    os.mkfifo(tmp_path / "imports")
    forks = Forks(tmp_path, f"open({str(tmp_path / 'imports')!r}, 'w').write('imports')\n{PROGRAM}")
    yield forks
    forks.close()


def pod(forks: Forks, *command: str, **variables: str) -> subprocess.Popen[str]:
    """With these variables; its first process, which stands for sshd, says its number and ends with its input."""
    sshd = f"exec {BASH} -c 'echo $$ $0 $1; read' sshd -De"
    return subprocess.Popen(
        ["/bin/sh", "-c", f'"$@" & {sshd}', "worker", *command],
        env=forks.environment | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def worker(forks: Forks) -> list[str]:
    command = [sys.executable, "-m", "quantuner.distributed.worker", "--workspace", str(forks.folder)]
    command += ["--program", "program"]
    return [*command, *(word for name in forks.environment for word in ("--variable", name))]


def await_imports(forks: Forks) -> None:
    assert (forks.folder / "imports").read_text() == "imports"


def test_the_pods_first_process_is_sshd_and_everything_ends_with_it(forks: Forks) -> None:
    with pod(forks, *worker(forks)) as first:
        assert line(first) == f"{first.pid} sshd -De"
        await_imports(forks)
        rank = int(line(client := forks.ask("wait")))
        with ending(rank):
            first.terminate()
        assert ended(client)[0] == -9


def test_ranks_heed_what_a_shell_has_those_beside_it_ignore(forks: Forks) -> None:
    with pod(forks, *worker(forks)) as first:
        await_imports(forks)
        client = forks.ask("wait")
        line(client)
        client.send_signal(2)
        code, _, errors = ended(client)
        assert "KeyboardInterrupt" in errors
        assert code == -2
        first.terminate()


def test_libraries_are_loaded_without_variables_that_ranks_are_not_given(forks: Forks) -> None:
    """A user's image may set some, and sshd passes none of them on."""
    with pod(forks, *worker(forks), MKL_OF_THE_IMAGE="0") as first:
        await_imports(forks)
        assert ended(forks.ask("end", "3"))[:2] == (3, "not flushed, at exit\n")
        first.terminate()


@pytest.mark.parametrize(
    ("module", "says"), [("quantuner.distributed.worker", "no fork server"), ("quantuner.of_later", "No module named")]
)
def test_without_a_server_there_is_a_worker_still(forks: Forks, module: str, says: str) -> None:
    command = [sys.executable, "-m", module, "--workspace", str(forks.folder / "none")]
    with pod(forks, *command) as first:
        assert line(first) == f"{first.pid} sshd -De"
        assert first.stderr is not None
        assert says in first.stderr.readline()
        assert first.poll() is None
        first.communicate("", timeout=SECONDS)
