"""Ranks that a real server forks for real clients: what they are given, how they end, and who ends with whom."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantuner.distributed import forking
from quantuner.distributed.asked import close, received
from quantuner.distributed.forked import FORWARDED
from tests.unit.distributed.forks import PROGRAM, SECONDS, Forks, ended, ending, line, parent

IMPORTS_BY_ITSELF = "a rank imports by itself"


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[Forks]:
    forks = Forks(tmp_path)
    yield forks
    forks.close()


def test_a_rank_has_what_its_client_was_given(forks: Forks) -> None:
    forks.serve()
    umask = os.umask(0o031)
    processors = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(processors)})
        client = forks.ask("tell", OF_THIS_RANK="its own")
    finally:
        os.umask(umask)
        os.sched_setaffinity(0, processors)
    code, said, errors = ended(client, "put in")
    told = json.loads(said)
    assert (code, errors) == (0, "said to stderr\n")
    assert told["arguments"] == [str(forks.folder / "program.py"), "tell"]
    assert told["environment"].items() >= {**forks.environment, "OF_THIS_RANK": "its own"}.items()
    assert told["folder"] == told["path"] == str(forks.folder)
    assert told["umask"] == 0o031
    assert told["processors"] == [min(processors)]
    assert told["input"] == "put in"
    assert told["files"] == [0, 1, 2, 3]  # the last one is that of the folder it reads
    assert told["main"] == "program"


def test_ranks_differ_where_chance_has_them_differ_and_share_nothing(forks: Forks) -> None:
    forks.serve()
    both = [json.loads(ended(client)[1]) for client in (forks.ask("tell", RANK="0"), forks.ask("tell", RANK="1"))]
    assert [told["environment"]["RANK"] for told in both] == ["0", "1"]
    assert both[0]["random"] != both[1]["random"]


def test_a_rank_is_shown_as_one_and_is_a_child_of_the_server(forks: Forks) -> None:
    server = forks.serve()
    client = forks.ask("wait")
    rank = int(line(client))
    assert parent(rank) == server.pid
    assert Path(f"/proc/{rank}/comm").read_text() == "rank\n"


@pytest.mark.parametrize("code", [0, 3])
def test_a_client_ends_with_the_code_of_a_rank_that_ends_as_python_does(forks: Forks, code: int) -> None:
    forks.serve()
    assert ended(forks.ask("end", str(code))) == (code, "not flushed, at exit\n", "")


def test_an_error_of_a_rank_is_shown(forks: Forks) -> None:
    forks.serve()
    code, _, errors = ended(forks.ask("fail"))
    assert code == 1
    assert "Traceback" in errors
    assert errors.endswith("ValueError: the rank fails\n")


def test_a_rank_may_leave_with_a_text(forks: Forks) -> None:
    forks.serve()
    assert ended(forks.ask("leave")) == (1, "", "the rank leaves\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGALRM, signal.SIGINT])
def test_a_client_dies_by_the_signal_that_its_rank_dies_by(forks: Forks, number: int) -> None:
    forks.serve()
    assert ended(forks.ask("die", str(int(number)))) == (-number, "", "")
    assert not list(forks.folder.glob("core*"))


def test_signals_are_handed_on_and_the_rank_decides(forks: Forks) -> None:
    forks.serve()
    client = forks.ask("heed", *(str(int(number)) for number in FORWARDED))
    assert int(line(client)) != client.pid
    heard = []
    for number in FORWARDED:
        client.send_signal(number)
        heard.append(int(line(client)))
    assert heard == list(FORWARDED)
    assert ended(client) == (0, "", "")


def test_a_rank_that_is_told_to_end_ends_and_so_does_its_client(forks: Forks) -> None:
    forks.serve()
    client = forks.ask("wait")
    line(client)
    client.terminate()
    assert ended(client)[0] == -signal.SIGTERM


def test_a_rank_is_killed_when_its_client_is_and_others_are_not(forks: Forks) -> None:
    forks.serve()
    killed, other = forks.ask("wait"), forks.ask("heed", str(int(signal.SIGUSR1)))
    line(other)
    with ending(int(line(killed))):
        killed.kill()
    other.send_signal(signal.SIGUSR1)
    assert ended(other) == (0, f"{int(signal.SIGUSR1)}\n", "")


def test_ranks_and_clients_end_with_the_server(forks: Forks) -> None:
    server = forks.serve()
    clients = [forks.ask("wait"), forks.ask("wait")]
    first, second = (int(line(client)) for client in clients)
    with ending(first), ending(second):
        server.kill()
    assert [ended(client)[0] for client in clients] == [-signal.SIGKILL] * 2


@pytest.mark.parametrize(("how", "code"), [("killed", -signal.SIGKILL), ("left", 0)])
def test_what_a_rank_has_started_ends_with_it(forks: Forks, how: str, code: int) -> None:
    """It has what the rank had opened, as the journal and its lock."""
    forks.serve()
    client = forks.ask("leave_a_helper", how)
    with ending(int(line(client))):
        assert ended(client, "\n")[0] == code


def test_a_rank_in_a_group_of_its_own_heeds_signals_still(forks: Forks) -> None:
    server = forks.serve()
    client = forks.ask("leave_group")
    with ending(int(line(client))):
        client.terminate()
        assert ended(client)[0] == -signal.SIGTERM
    assert server.poll() is None


def test_a_client_that_asks_for_nothing_known_harms_nobody(forks: Forks) -> None:
    server = forks.serve()
    other = forks.ask("heed", str(int(signal.SIGUSR1)))
    line(other)
    for files in (0, 1, 4):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client, tempfile.TemporaryFile() as junk:
            client.connect(str(forks.folder / forking.SOCKET))
            junk.write(b"junk")
            junk.flush()
            socket.send_fds(client, [b"fork"], [junk.fileno()] * files)
            assert client.recv(1) == b""
    other.send_signal(signal.SIGUSR1)
    assert ended(other) == (0, f"{int(signal.SIGUSR1)}\n", "")
    assert server.poll() is None


def test_a_rank_has_its_own_folder_for_temporary_files(forks: Forks) -> None:
    forks.serve()
    assert ended(forks.ask("temporary", TMPDIR=str(forks.folder)))[1] == f"{forks.folder}\n"


def test_a_server_ends_with_who_started_it(forks: Forks) -> None:
    start = "import os, signal, sys, pathlib; from quantuner.distributed import forking; "
    start += "print(forking.start(pathlib.Path(sys.argv[1]), os.environ, 'program').pid, flush=True); signal.pause()"
    command = [sys.executable, "-c", start, str(forks.folder)]
    starter = subprocess.Popen(command, env=forks.environment, stdout=subprocess.PIPE, text=True)
    with starter, ending(int(line(starter))):
        assert ended(forks.ask("end", "0"))[2] == ""  # it has told the kernel by now
        starter.kill()


def test_without_a_server_a_client_becomes_the_rank(forks: Forks) -> None:
    code, said, errors = ended(forks.ask("end", "3"))
    assert (code, said) == (0, "")  # a program that has no main of its own when it is run
    assert IMPORTS_BY_ITSELF in errors
    assert "No such file" in errors


def test_where_a_server_is_gone_a_client_becomes_the_rank(forks: Forks) -> None:
    (forks.folder / "program.py").write_text(f"{PROGRAM}\nif __name__ == '__main__': sys.exit(main())")
    server = forks.serve()
    assert ended(forks.ask("end", "3")) == (3, "not flushed, at exit\n", "")
    server.kill()
    server.wait()
    code, said, errors = ended(forks.ask("end", "3"))
    assert (code, said) == (3, "not flushed, at exit\n")
    assert "Connection refused" in errors


def test_a_rank_of_other_variables_imports_by_itself(forks: Forks) -> None:
    forks.serve()
    code, _, errors = ended(forks.ask("end", "3", OMP_NUM_THREADS="7", MKL_DYNAMIC="0", OF_NO_LIBRARY="x"))
    assert code == 0
    assert "loaded there with another MKL_DYNAMIC, OMP_NUM_THREADS\n" in errors


def test_a_client_waits_for_a_server_that_is_importing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "imports")
    forks = Forks(tmp_path, f"open({str(tmp_path / 'imports')!r}).read()\n{PROGRAM}")
    forks.serve()
    client = forks.ask("end", "3")
    (tmp_path / "imports").write_text("go on")
    assert ended(client) == (3, "not flushed, at exit\n", "")
    forks.close()


def test_where_a_server_fails_to_import_a_client_becomes_the_rank(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "imports")
    forks = Forks(tmp_path, f"import sys\nif __name__ != '__main__': open({str(tmp_path / 'imports')!r}).read(); 1 / 0")
    server = forks.serve()
    client = forks.ask()
    (tmp_path / "imports").write_text("go on")
    code, _, errors = ended(client)
    assert code == 0
    assert IMPORTS_BY_ITSELF in errors
    assert "it cannot import program: ZeroDivisionError" in errors
    assert server.wait(SECONDS) == 1
    forks.close()


@contextlib.contextmanager
def asked(forks: Forks, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """A client that waits for a server, which is this test, and the connection to it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(forks.folder / forking.SOCKET))
        listening.listen()
        client = forks.ask(*arguments)
        connection, _ = listening.accept()
    with connection:
        streams, order = received(connection)
        close(streams)
        assert order is not None
        yield client, connection


def test_a_client_ends_as_killed_where_its_server_ends_without_a_word(forks: Forks) -> None:
    """Whoever looks after the ranks has ended, too, or starts them again."""
    with asked(forks, "end", "3") as (client, _):
        pass
    assert ended(client) == (-signal.SIGKILL, "", "")


def test_a_client_that_is_refused_heeds_the_signals_that_came_before(forks: Forks) -> None:
    with asked(forks, "end", "3") as (client, connection):
        connection.settimeout(0.01)
        while True:  # until it hands on
            client.send_signal(signal.SIGCONT)
            with contextlib.suppress(TimeoutError):
                connection.recv(1)
                break
        connection.settimeout(SECONDS)
        client.send_signal(signal.SIGTERM)
        while connection.recv(1) != bytes([signal.SIGTERM]):
            pass
        connection.send(b"refused")
    assert ended(client) == (-signal.SIGTERM, "", "")


def test_a_rank_looks_for_modules_where_its_client_is_unless_paths_are_to_be_safe(forks: Forks) -> None:
    forks.environment |= {"PYTHONSAFEPATH": "1", "PYTHONPATH": f"/first:{forks.environment['PYTHONPATH']}"}
    forks.serve()
    assert json.loads(ended(forks.ask("tell"))[1])["path"] == "/first"


def test_what_a_library_sets_when_it_is_imported_is_set_in_a_rank(tmp_path: Path) -> None:
    forks = Forks(tmp_path, f"{PROGRAM}\nos.environ |= {{'OMP_OF_LIBRARY': 'set', 'OF_RANK': 'set'}}")
    forks.serve()
    told = json.loads(ended(forks.ask("tell", OF_RANK="its own"))[1])["environment"]
    assert (told["OMP_OF_LIBRARY"], told["OF_RANK"]) == ("set", "its own")
    forks.close()


def test_a_program_is_prepared_once_and_before_its_first_fork(tmp_path: Path) -> None:
    prepared = "\nmade = []\ndef prepare_to_fork(): made.append(os.getpid())\ndef made_by(): print(made)"
    forks = Forks(tmp_path, f"{PROGRAM}{prepared}")
    server = forks.serve()
    assert [ended(forks.ask("made_by"))[1] for _ in range(2)] == [f"[{server.pid}]\n"] * 2
    forks.close()


def test_numpy_and_torch_begin_with_other_seeds_in_each_rank(tmp_path: Path) -> None:
    draws = "\ndef draw(): print(numpy.random.random(), torch.rand(1).item(), torch.initial_seed())"
    forks = Forks(tmp_path, f"import numpy.random, torch\n{PROGRAM}{draws}")
    forks.serve()
    first, second = (ended(forks.ask("draw"))[1].split() for _ in range(2))
    assert all(one != other for one, other in zip(first, second, strict=True))
    forks.close()


def test_only_this_user_can_connect(forks: Forks) -> None:
    forks.serve()
    mode = (forks.folder / forking.SOCKET).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_a_server_takes_the_place_of_one_that_is_gone(forks: Forks) -> None:
    server = forks.serve()
    server.kill()
    server.wait()
    forks.serve()
    assert ended(forks.ask("end", "3")) == (3, "not flushed, at exit\n", "")
