"""Ranks compare what decides an accuracy, and agree on their threads. Ranks here are threads of one process."""

from dataclasses import replace
from typing import Any

import pytest

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.journal import History
from quantuner.distributed.communicator import Solo
from quantuner.distributed.processors import Processors
from quantuner.strategy import meeting
from quantuner.strategy.meeting import (
    REMEDIES,
    Card,
    Machine,
    difference,
    meet,
    recorded_threads,
    same_everywhere,
    this_machine,
    threads_of,
)
from tests.unit.records import launched, told, tuning
from tests.unit.strategy.ranked import on_ranks

FACTS = {"torch": "2.13.0", "torchao": "0.18.0", "Python": "3.11.2", "CPU": "AVX512"}


def cards(*changes: dict[str, str]) -> list[Card]:
    return [Card(f"host-{rank}", FACTS | change) for rank, change in enumerate(changes)]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param([{}], None, id="one rank"),
        pytest.param([{}, {}, {}], None, id="all alike"),
        pytest.param(
            [{}, {"torch": "2.12.1"}],
            "rank 1 on host-1 differs from rank 0 on host-0: torch is 2.12.1 and not 2.13.0; start every rank from one "
            "image or one installation",
            id="another torch",
        ),
        pytest.param(
            [{}, {}, {"Python": "3.12.0", "torchao": "0.17.0"}],
            "rank 2 on host-2 differs from rank 0 on host-0: torchao is 0.17.0 and not 0.18.0, Python is 3.12.0 and "
            "not 3.11.2; start every rank from one image or one installation",
            id="two things with one remedy",
        ),
        pytest.param(
            [{"CPU": "AVX2"}, {}, {}],
            "rank 1 on host-1 differs from rank 0 on host-0: CPU is AVX512 and not AVX2 (ranks that differ: 1, 2); "
            "let template.nodeSelector choose nodes of one kind, whose torch uses the same instructions",
            id="rank 0 is the odd one",
        ),
    ],
)
def test_the_first_rank_that_differs_is_named_with_the_remedy(changes: list[dict[str, str]], says: str | None) -> None:
    assert difference(cards(*changes)) == says


@pytest.mark.parametrize("name", REMEDIES)
def test_whatever_is_compared_differs_with_a_remedy(name: str) -> None:
    one, other = Card("a", {name: "x"}), Card("b", {name: "y"})
    found = difference([one, other])
    assert found is not None
    assert found.startswith(f"rank 1 on b differs from rank 0 on a: {name} is y and not x; {REMEDIES[name]}")


def test_what_this_machine_says_has_remedies() -> None:
    assert set(this_machine().card.facts) <= set(REMEDIES)


@pytest.mark.parametrize("models", ["aaa", "a", "aab", "baa"])
def test_ranks_with_another_model_than_rank_0s_are_refused_everywhere(models: str) -> None:
    answers = on_ranks(len(models), lambda comm: same_everywhere(comm, {"model": models[comm.rank]}))
    if len(set(models)) == 1:
        hosts = tuple([this_machine().card.host] * len(models))
        assert answers == [hosts, *[()] * (len(models) - 1)]
        return
    assert all(isinstance(answer, SearchError) and answer.reason == Failure.RANKS_DIFFER for answer in answers)
    assert len({answer.message for answer in answers}) == 1
    assert "seed what the task trains or load them from a file" in answers[0].message


# --- threads

EIGHT = frozenset(range(8))


def machine(host: str = "a", cpus: frozenset[int] = EIGHT, quota: float | None = None, threads: int = 8) -> Machine:
    return Machine(Card(host, FACTS), Processors(host, cpus, quota), threads)


@pytest.mark.parametrize(
    ("machines", "given", "threads"),
    [
        pytest.param([machine("a"), machine("b")], 3, 3, id="the resource's word"),
        pytest.param([machine("a"), machine("b", quota=2.0)], 3, 3, id="the resource's word, though it is too many"),
        pytest.param([machine("a"), machine("b", quota=3.5)], None, 3, id="of the poorest host"),
        pytest.param([machine("a"), machine("a"), machine("b")], None, 4, id="a host's ranks share it"),
        pytest.param([machine("a", threads=2), machine("b")], None, 2, id="never more than a rank's torch takes"),
        pytest.param([machine("a", quota=0.3)], None, 1, id="at least one"),
    ],
)
def test_all_ranks_compute_with_one_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, machines: list[Machine], given: int | None, threads: int
) -> None:
    waiting = iter(machines)
    monkeypatch.setattr(meeting, "this_machine", lambda: next(waiting))
    assert on_ranks(len(machines), lambda comm: meet(comm, given)) == [threads] * len(machines)


def test_more_threads_than_cpus_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(meeting, "this_machine", lambda: machine(quota=2.0))
    assert meet(Solo(), 2) == 2
    assert not caplog.messages
    assert meet(Solo(), 3) == 3
    assert caplog.messages[0].startswith("3 threads a rank, but a host has CPUs for 2")


def test_ranks_with_other_libraries_do_not_agree_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    one = machine()
    waiting = iter([one, replace(one, card=Card("b", {**FACTS, "CPU": "AVX2"}))])
    monkeypatch.setattr(meeting, "this_machine", lambda: next(waiting))
    answers = on_ranks(2, lambda comm: meet(comm, None))
    assert [(answer.reason, "CPU is" in answer.message) for answer in answers] == [(Failure.RANKS_DIFFER, True)] * 2


FOUR_CPUS = {"template": {"resources": {"limits": {"cpu": "4"}}}}


def history(threads: int, trials: int = 1) -> History:
    return History([launched(threads=threads)], [told(index, 0.5) for index in range(trials)])


@pytest.mark.parametrize(
    ("spec", "known", "threads"),
    [
        pytest.param({}, History(), 1, id="nothing said"),
        pytest.param(FOUR_CPUS, History(), 4, id="the pod's CPUs"),
        pytest.param({**FOUR_CPUS, "slotsPerWorker": 2}, history(4), 4, id="slots changed under results"),
        pytest.param({**FOUR_CPUS, "slotsPerWorker": 2}, history(4, trials=0), 2, id="slots changed before results"),
        pytest.param(FOUR_CPUS, history(0), 4, id="a record that does not say"),
        pytest.param({"threadsPerRank": 3}, history(4), 3, id="the user's own, which the record then refuses"),
        pytest.param({"threadsPerRank": "auto"}, History(), None, id="left to the machines"),
        pytest.param({"threadsPerRank": "auto"}, history(6), 6, id="left to the machines of the first launch"),
    ],
)
def test_threads_of_a_launch(spec: Any, known: History, threads: int | None) -> None:
    assert threads_of(tuning(spec), known) == threads


def test_a_search_without_results_has_no_threads_recorded() -> None:
    assert recorded_threads(History()) is None
    assert recorded_threads(history(3)) == 3
