"""Commands that start ranks, and the hosts that can take them."""

import contextlib
import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from quantuner.distributed import mpirun
from quantuner.distributed.mpirun import Host


def test_one_rank_needs_no_mpi() -> None:
    launch = mpirun.local(1, ["python", "-m", "quantuner.run"])
    assert list(launch.command) == ["python", "-m", "quantuner.run", "--serial"]
    assert launch.environment == {}


def test_more_ranks_start_with_the_wheels_own_mpiexec() -> None:
    launch = mpirun.local(3, ["program"])
    assert Path(launch.command[0]).is_file()
    assert launch.command[1:3] == ["-n", "3"]
    assert launch.command[-1] == "program"


def test_on_hosts_a_rank_runs_in_each_slot(tmp_path: Path) -> None:
    hosts = [Host("launcher"), Host("worker-0", 2), Host("worker-1", 2)]
    launch = mpirun.on_hosts(hosts, tmp_path / "hostfile", ["program", "--flag"])
    assert (tmp_path / "hostfile").read_text() == "launcher slots=1\nworker-0 slots=2\nworker-1 slots=2\n"
    command = list(launch.command)
    assert command[command.index("-n") + 1] == "5"
    assert command[command.index("--hostfile") + 1] == str(tmp_path / "hostfile")
    assert command[-2:] == ["program", "--flag"]


def test_ranks_of_a_host_know_their_slots(tmp_path: Path) -> None:
    """Under a real mpirun, on the one host that is here."""
    program = mpirun.python("-c", "import os; print(os.environ[f'{W}RANK'], os.environ[f'{W}LOCAL_RANK'])")
    program[-1] = program[-1].replace("import os;", "import os; W = 'OMPI_COMM_WORLD_';")
    launch = mpirun.on_hosts([Host("localhost", 3)], tmp_path / "hostfile", program)
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environment = {**os.environ, **launch.environment, **root}
    done = subprocess.run(launch.command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 0", "1 1", "2 2"]


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("a slots=1\nb slots=4\n", [Host("a"), Host("b", 4)]),
        ("\n# none yet\na # this one\n\n  b max_slots=9 slots=2\n", [Host("a"), Host("b", 2)]),
        ("", []),
    ],
)
def test_hosts_of_a_hostfile_in_order(tmp_path: Path, text: str, hosts: list[Host]) -> None:
    (tmp_path / "hostfile").write_text(text)
    assert mpirun.read_hostfile(tmp_path / "hostfile") == hosts


def test_a_host_answers_when_its_sshd_greets() -> None:
    """127.0.0.2 is another host of this computer; its port is the tuner image's."""
    try:
        server = socket.create_server(("127.0.0.2", mpirun.SSH_PORT))
    except OSError as error:
        pytest.skip(f"port {mpirun.SSH_PORT} of 127.0.0.2 cannot be had here: {error}")

    def greet() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"SSH-2.0-test\r\n")

    hosts = [Host("launcher"), Host("127.0.0.2", 3)]
    with server:
        thread = threading.Thread(target=greet)
        thread.start()
        assert mpirun.answering(hosts, threading.Event()) == hosts
        thread.join()


def test_hosts_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is greeted when the other has been asked, too."""
    monkeypatch.setattr(mpirun, "HOSTS_SECONDS", 0.0)
    hosts = [Host("launcher"), Host("127.0.0.2"), Host("127.0.0.3")]
    with socket.create_server(("", 0)) as server:
        monkeypatch.setattr(mpirun, "SSH_PORT", server.getsockname()[1])

        def greet() -> None:
            connections = [server.accept()[0] for _ in hosts[1:]]
            for connection in connections:
                with connection, contextlib.suppress(OSError):
                    connection.sendall(b"SSH-2.0-test\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        assert mpirun.answering(hosts, threading.Event()) == hosts
        thread.join()


def test_the_first_host_is_this_one_and_needs_no_sshd() -> None:
    assert mpirun.answering([Host("nowhere.invalid")], threading.Event()) == [Host("nowhere.invalid")]
