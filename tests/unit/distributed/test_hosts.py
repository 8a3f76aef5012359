"""Which hosts answer, and when those that did not are back for good."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quantuner.distributed import hosts
from quantuner.distributed.hosts import Host, Returning, all_answer, answering, read_hostfile
from tests.unit.distributed.sshd import answering_host, port

__all__ = ["port"]
LAUNCHER, FIRST, SECOND = Host("launcher"), Host("127.0.0.2", 3), Host("127.0.0.3")
SECONDS = 30.0
"""Never waited for in a test that passes."""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a slots=1\nb slots=4\n", [Host("a"), Host("b", 4)]),
        ("\n# none yet\na # this one\n\n  b max_slots=9 slots=2\n", [Host("a"), Host("b", 2)]),
        ("", []),
    ],
)
def test_hosts_of_a_hostfile_in_order(tmp_path: Path, text: str, found: list[Host]) -> None:
    (tmp_path / "hostfile").write_text(text)
    assert read_hostfile(tmp_path / "hostfile") == found


def test_the_port_is_that_of_the_image() -> None:
    config = Path(__file__).parents[3] / "images" / "tuner" / "sshd_config"
    assert f"Port {hosts.SSH_PORT}" in config.read_text().splitlines()


def test_a_host_answers_when_its_sshd_greets(port: int) -> None:
    with answering_host(FIRST.name, port):
        assert answering([LAUNCHER, FIRST], threading.Event(), SECONDS) == [LAUNCHER, FIRST]


def test_a_host_that_is_silent_is_left_out_when_patience_ends(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "CONNECT_SECONDS", 3.0)  # nobody waits for the silent one but for so long
    with answering_host(SECOND.name, port), socket.create_server((FIRST.name, port)):
        assert answering([LAUNCHER, FIRST, SECOND], threading.Event(), 0) == [LAUNCHER, SECOND]


def test_a_host_that_comes_back_is_waited_for(port: int) -> None:
    with contextlib.ExitStack() as stack:
        later = threading.Timer(0.3, lambda: stack.enter_context(answering_host(FIRST.name, port)))
        later.start()
        assert answering([LAUNCHER, FIRST], threading.Event(), SECONDS) == [LAUNCHER, FIRST]
        later.join()


def test_nobody_is_waited_for_by_one_that_is_told_to_stop(port: int) -> None:
    stop = threading.Event()
    stop.set()
    assert answering([LAUNCHER, FIRST], stop, SECONDS) == [LAUNCHER]


def test_hosts_are_asked_at_once(port: int) -> None:
    """Each is greeted when the other has been asked, too."""

    def greet(servers: list[socket.socket]) -> None:
        connections = [server.accept()[0] for server in servers]
        for connection in connections:
            with connection:
                connection.sendall(b"SSH-2.0-test\r\n")

    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server((host.name, port))) for host in (FIRST, SECOND)]
        thread = threading.Thread(target=greet, args=(servers,))
        thread.start()
        assert answering([LAUNCHER, FIRST, SECOND], threading.Event(), 0) == [LAUNCHER, FIRST, SECOND]
        thread.join()


def test_whether_all_hosts_answer_at_this_moment(port: int) -> None:
    assert all_answer([LAUNCHER])
    with answering_host(FIRST.name, port):
        assert all_answer([LAUNCHER, FIRST])
        assert not all_answer([LAUNCHER, FIRST, SECOND])


def test_the_first_host_is_this_one_and_needs_no_sshd() -> None:
    assert answering([Host("nowhere.invalid")], threading.Event(), SECONDS) == [Host("nowhere.invalid")]


# --- hosts that a launch goes on without


def always() -> bool:
    return True


@contextlib.contextmanager
def waiting(
    returning: Returning, *absent: Host, is_worth_it: Callable[[], bool] = always
) -> Iterator[tuple[list[bool], threading.Event]]:
    """Waits for these hosts beside the block; what came of it is in the list when `ended` was set, or before."""
    found: list[bool] = []
    ended = threading.Event()
    thread = threading.Thread(target=lambda: found.append(returning.await_steady(absent, ended, is_worth_it)))
    thread.start()
    try:
        yield found, ended
    finally:
        thread.join(SECONDS)
        assert not thread.is_alive()


def greeted(count: threading.Semaphore, times: int) -> None:
    for _ in range(times):
        assert count.acquire(timeout=SECONDS)


def test_a_host_that_answers_for_a_while_is_back(port: int) -> None:
    with answering_host(FIRST.name, port) as count, waiting(Returning(steady=0.05, away=0.01), FIRST) as (found, _):
        greeted(count, 2)
    assert found == [True]


def test_a_host_that_stays_away_is_not_waited_for_when_the_ranks_have_ended(port: int) -> None:
    with waiting(Returning(steady=0.0, away=0.01), FIRST) as (found, ended):
        ended.set()
    assert found == [False]


def test_a_host_that_comes_and_goes_is_not_back(port: int) -> None:
    """It would have been, with what it answered before it was away."""
    steady = Returning(steady=SECONDS, away=0.01)
    with waiting(steady, FIRST) as (found, ended):
        for _ in range(2):
            with answering_host(FIRST.name, port) as count:
                greeted(count, 2)
        ended.set()
    assert found == [False]


def test_each_return_asks_for_twice_the_while(port: int) -> None:
    returning = Returning(steady=0.05, away=0.01)
    with answering_host(FIRST.name, port):
        for _ in range(3):
            assert returning.await_steady([FIRST], threading.Event(), always)
    assert returning.steady == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("seconds", "back"),
    [
        pytest.param([11.0], True, id="one"),
        pytest.param([9.0], False, id="one that has just come"),
        pytest.param([11.0, 9.0], False, id="another one is coming"),
        pytest.param([11.0, 12.0], True, id="both"),
        pytest.param([21.0, 1.0], True, id="the other comes and goes"),
    ],
)
def test_those_that_come_together_are_started_together(seconds: list[float], back: bool) -> None:
    assert Returning(steady=10.0).are_back(seconds) == back


def test_ranks_are_not_ended_where_it_is_not_worth_it(port: int) -> None:
    asked = threading.Semaphore(0)

    def no() -> bool:
        asked.release()
        return False

    with (
        answering_host(FIRST.name, port),
        waiting(Returning(steady=0.0, away=0.01), FIRST, is_worth_it=no) as (found, ended),
    ):
        greeted(asked, 2)
        ended.set()
    assert found == [False]
