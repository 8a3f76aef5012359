"""Commands that start ranks, and the hosts that can take them."""

import socket
import threading
from pathlib import Path

import pytest

from quantuner.distributed import mpirun


def test_one_rank_needs_no_mpi() -> None:
    launch = mpirun.local(1, ["python", "-m", "quantuner.run"])
    assert list(launch.command) == ["python", "-m", "quantuner.run", "--serial"]
    assert launch.environment == {}


def test_more_ranks_start_with_the_wheels_own_mpiexec() -> None:
    launch = mpirun.local(3, ["program"])
    assert Path(launch.command[0]).is_file()
    assert launch.command[1:3] == ["-n", "3"]
    assert launch.command[-1] == "program"


def test_on_hosts_a_rank_runs_on_each(tmp_path: Path) -> None:
    launch = mpirun.on_hosts(["launcher", "worker-0", "worker-1"], tmp_path / "hostfile", ["program", "--flag"])
    assert (tmp_path / "hostfile").read_text() == "launcher slots=1\nworker-0 slots=1\nworker-1 slots=1\n"
    command = list(launch.command)
    assert command[command.index("-n") + 1] == "3"
    assert command[command.index("--hostfile") + 1] == str(tmp_path / "hostfile")
    assert command[-2:] == ["program", "--flag"]


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("a slots=1\nb slots=1\n", ["a", "b"]),
        ("\n# none yet\na # this one\n\n  b\n", ["a", "b"]),
        ("", []),
    ],
)
def test_hosts_of_a_hostfile_in_order(tmp_path: Path, text: str, hosts: list[str]) -> None:
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

    with server:
        thread = threading.Thread(target=greet)
        thread.start()
        assert mpirun.answering(["launcher", "127.0.0.2"], threading.Event()) == ["launcher", "127.0.0.2"]
        thread.join()


def test_the_first_host_is_this_one_and_needs_no_sshd() -> None:
    assert mpirun.answering(["nowhere.invalid"], threading.Event()) == ["nowhere.invalid"]
