"""Starts on the hosts that answer: how long others are waited for, and when a larger start is worth its price."""

import math
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from quantuner.api.journal import History, Launched, Record, encode
from quantuner.distributed import starts
from quantuner.distributed.hosts import Host, Returning
from quantuner.distributed.journal import JOURNAL_FILE
from quantuner.distributed.processes import Launch
from quantuner.distributed.starts import Limits, Starts, gain, start_seconds
from tests.unit.distributed.sshd import answering_host, port
from tests.unit.records import launched, told

__all__ = ["port"]
LAUNCHER, FIRST, SECOND = Host("launcher"), Host("127.0.0.2", 3), Host("127.0.0.3")
SECONDS = 30.0
"""Never waited for in a test that passes."""


def launch_of(hosts: Sequence[Host]) -> Launch:
    return Launch([host.name for host in hosts], {})


def starts_on(folder: Path, *hosts: Host, limits: Limits | None = None) -> Starts:
    returning = Returning(steady=0.0, away=0.01)
    return Starts(folder, lambda: list(hosts), launch_of, limits or Limits(), returning)


def recorded(since_1970: float) -> Launched:
    return launched(time=datetime.fromtimestamp(since_1970, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))


def test_a_launch_on_all_hosts_cannot_be_larger(tmp_path: Path, port: int) -> None:
    with answering_host(FIRST.name, port):
        launch = starts_on(tmp_path, LAUNCHER, FIRST)(threading.Event())
    assert launch == launch_of([LAUNCHER, FIRST])


def test_a_launch_goes_on_without_a_host_until_it_is_back(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "FIRST_PATIENCE_SECONDS", 0.0)
    given = starts_on(tmp_path, LAUNCHER, FIRST, SECOND)
    with answering_host(FIRST.name, port):
        launch = given(threading.Event())
        assert launch.command == [LAUNCHER.name, FIRST.name]
        assert launch.larger is not None
        with answering_host(SECOND.name, port):
            assert launch.larger(threading.Event())
            assert given(threading.Event()) == launch_of([LAUNCHER, FIRST, SECOND])


def test_a_search_that_is_about_to_end_is_not_started_anew(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "FIRST_PATIENCE_SECONDS", 0.0)
    launch = starts_on(tmp_path, LAUNCHER, FIRST, limits=Limits(trials=3))(threading.Event())
    records: list[Record] = [recorded(time.time()), told(0, 0.9), *(told(index, 0.5, seconds=60.0) for index in (1, 2))]
    (tmp_path / JOURNAL_FILE).write_text("".join(f"{encode(record)}\n" for record in records))
    ended = threading.Event()
    found: list[bool] = []
    assert launch.larger is not None
    larger = launch.larger
    with answering_host(FIRST.name, port) as greeted:
        waiting = threading.Thread(target=lambda: found.append(larger(ended)))
        waiting.start()
        assert all(greeted.acquire(timeout=SECONDS) for _ in range(3))
        ended.set()
        waiting.join(SECONDS)
    assert found == [False]


def bounded(seconds: float) -> float:
    return min(max(seconds, starts.LEAST_PATIENCE_SECONDS), starts.MOST_PATIENCE_SECONDS)


@pytest.mark.parametrize(
    "taken",
    [
        pytest.param(0.0, id="a quick start"),
        pytest.param(60.0, id="as long as the last start took"),
        pytest.param(3600.0, id="within bounds"),
    ],
)
def test_hosts_are_waited_for_as_long_as_a_start_takes(tmp_path: Path, taken: float) -> None:
    given = starts_on(tmp_path, LAUNCHER)
    assert given.patience() == starts.FIRST_PATIENCE_SECONDS
    before = time.time()
    given(threading.Event())
    after = time.time()
    assert given.patience() == starts.FIRST_PATIENCE_SECONDS  # it has not come to a search
    (tmp_path / JOURNAL_FILE).write_text(encode(recorded(after + taken)) + "\n")
    # The start was somewhen in between, and a record has whole seconds.
    assert bounded(taken) <= given.patience() <= bounded(taken + 1 + after - before)


def test_a_start_lasts_until_its_launch_is_recorded() -> None:
    history = History.replay([encode(launched(time="2026-01-01T00:00:09Z"))])
    began = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert start_seconds(history, began) == 10.0  # times of records are rounded down
    assert start_seconds(history, began + 20) is None  # another launch's
    assert start_seconds(history, None) is None
    assert start_seconds(History(), began) is None


def history_of(trials: int, seconds: float, elapsed: float = 0.0) -> History:
    """A baseline that took no time, and trials that took this long each."""
    records: list[Record] = [told(0, 0.9), *(told(index, 0.5, seconds=seconds) for index in range(1, trials + 1))]
    records[-1] = told(trials, 0.5, seconds=seconds, elapsed=elapsed)
    return History.replay(map(encode, [launched(), *records]))


@pytest.mark.parametrize(
    ("history", "limits", "ranks", "seconds"),
    [
        pytest.param(History(), Limits(trials=10), 1, math.inf, id="nothing told yet"),
        pytest.param(history_of(4, 2.0), Limits(), 1, math.inf, id="no limit"),
        pytest.param(history_of(4, 2.0), Limits(trials=20), 2, 6.0, id="16 s on two ranks, 8 s on four, a trial again"),
        pytest.param(history_of(4, 2.0), Limits(trials=20), 1, 22.0, id="32 s on one rank"),
        pytest.param(history_of(4, 2.0), Limits(trials=4), 1, -2.0, id="the last trial is told"),
        pytest.param(history_of(4, 2.0, elapsed=50.0), Limits(trials=20, seconds=58.0), 2, 2.0, id="8 s are left"),
    ],
)
def test_what_more_ranks_gain(history: History, limits: Limits, ranks: int, seconds: float) -> None:
    assert gain(history, limits, ranks, 4) == seconds
