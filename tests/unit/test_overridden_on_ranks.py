"""What users override of a strategy, by `fit` under a real mpirun: all of it is called, and nobody waits for an error.

An override may raise: `traverse`, `distributed_traverse` or a rank's handle; on rank 0 or another one; before it calls
super's or after. One mpirun runs all of these, one after the other, and a search that succeeds last: a rank that was
left waiting, or a message that was left lying, would be seen there. Left out is a rank that waits for one that raised
in a call of mpi4py of its own.
"""

import itertools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quantuner.distributed import mpirun
from quantuner.distributed.journal import read_history
from quantuner.engine.engine import threads
from quantuner.strategy import strategy_registry
from quantuner.strategy.registry import _strategies
from tests.unit import overriding_main
from tests.unit.overriding_main import IDLE, NOWHERE, OverridingTuneStrategy
from tests.unit.strategy.judged import essence

pytestmark = pytest.mark.usefixtures("fresh_forks_begin")
RANKS = 3
MEMBERS = ["traverse", "distributed_traverse", "handle"]
PLACES = [" ".join(place) for place in itertools.product(MEMBERS, "01", ("before", "after"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, forked_rank: Callable[..., list[str]]) -> Path:
    """Where the ranks searched."""
    folder = tmp_path_factory.mktemp("overriding")
    launch = mpirun.local(RANKS, forked_rank(overriding_main.__name__, str(folder), *PLACES, IDLE))
    environment = {**os.environ, **launch.environment}
    done = subprocess.run(launch.command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def said(folder: Path) -> list[dict[str, Any]]:
    """What each rank said of all."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.fixture
def _registered() -> Iterator[None]:
    before = dict(_strategies)
    strategy_registry(OverridingTuneStrategy)
    with threads(1):
        yield
    _strategies.clear()
    _strategies.update(before)


@pytest.mark.parametrize("place", PLACES)
def test_where_an_override_raises_on_a_rank_all_get_its_error(said: list[dict[str, Any]], place: str) -> None:
    (error,) = {each[place] for each in said}
    assert "OverridingTuneStrategy raised at overriding_main.py:" in error
    assert f"ValueError: raised in {place}" in error
    assert error.endswith("(on rank 1)") == (" 1 " in place)


def test_a_slave_that_does_not_serve_is_every_ranks_error(said: list[dict[str, Any]]) -> None:
    (error,) = {each[IDLE] for each in said}
    assert "distributed_traverse and slave_worker_handle call super()'s (on rank 1)" in error


def test_handles_get_a_communicator_of_mpi4py(said: list[dict[str, Any]]) -> None:
    assert [each["spelled"] for each in said] == [[rank, RANKS, "0", RANKS] for rank in range(RANKS)]


@pytest.mark.usefixtures("_registered")
def test_overrides_are_called_on_every_rank_and_tell_what_one_process_tells(
    folder: Path, said: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert [each["called"] for each in said] == [MEMBERS] * RANKS
    overriding_main.fitted(NOWHERE, tmp_path)
    assert OverridingTuneStrategy.called == ["traverse"]
    alone, together = (read_history(at / "journal.jsonl").trials for at in (tmp_path, folder / NOWHERE))
    assert len(alone) == 3
    assert essence(together) == essence(alone)


def test_the_handles_of_strategies_just_made_search_together(said: list[dict[str, Any]]) -> None:
    (_, told), *others = (each["by hand"] for each in said)
    assert told == [0, 1, 2]
    assert sum(served for served, _ in others) >= 2
