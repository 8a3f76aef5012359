"""The protocol in thousands of seeded worlds: whatever is delayed, lost or stuck, the same history as in series.

A seed draws a search (batches, durations, trials that fail, a decision) and a world (ranks, latency, shares, crashes,
hangs, a trial that kills its rank, loss of rank 0 and so a relaunch, a rank 0 that is held up where it waits or tells).
Nobody who lives is given up. A failing seed is named: `check(seed)`.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from quantuner.api.trial import TrialResult
from quantuner.distributed.answered import Answered
from quantuner.distributed.communicator import RanksLostError
from quantuner.distributed.executors import Serial, Told
from quantuner.distributed.losses import LOSSES, Losses
from quantuner.distributed.master import Master
from quantuner.distributed.protocol import Known, Limits, Work
from quantuner.distributed.slave import Slave
from tests.unit.distributed.simulated import Killed, Simulation, Virtual

SEEDS = 3000
GROUPS = 30
LAUNCHES = 40


@dataclass
class Case:
    """A search and the world it meets."""

    seed: int
    ranks: int
    batches: list[int]
    durations: list[float]
    failing: set[int]
    stop_at: int | None
    shares: int
    latency: float
    crashes: list[tuple[int, int, float]]
    """(launch, rank, time)."""
    hangs: list[tuple[int, int, float]]
    killers: set[int] = field(default_factory=set)
    holds: list[tuple[int, float, float]] = field(default_factory=list)
    """(launch, time, seconds) of rank 0."""
    slow_tells: dict[int, float] = field(default_factory=dict)
    """Trial to the seconds for which rank 0 is held up when it tells it."""

    @classmethod
    def of(cls, seed: int) -> Case:
        rng = random.Random(seed)
        batches = [rng.choice([1, 1, 2, 5, 12, 30]) for _ in range(rng.randint(1, 4))]
        count, ranks = sum(batches), rng.randint(2, 8)
        scale = rng.choice([0.0, 0.0005, 0.05, 1.0])
        faulty = rng.random() < 0.7
        faults = rng.randint(1, 4) if faulty else 0
        horizon = max(0.5, scale * count / ranks)

        def fault(ranks_from: int) -> tuple[int, int, float]:
            return rng.randint(0, 1), rng.randint(ranks_from, ranks - 1), rng.uniform(0, horizon)

        holding = random.Random(f"rank 0 of {seed}")  # another one, so that a seed's other faults stay as they are

        def held_up() -> float:
            return holding.choice([1.0, 20.0, 34.0, 36.0, 60.0, 200.0])

        def hold() -> tuple[int, float, float]:
            return holding.randint(0, 1), holding.uniform(0, horizon), held_up()

        return cls(
            seed=seed,
            ranks=ranks,
            batches=batches,
            durations=[0.0] + [scale * rng.choice([0.2, 1.0, 1.0, 2.0]) for _ in range(count)],
            failing={rng.randint(1, count) for _ in range(rng.randint(0, 2))},
            stop_at=rng.choice([None, rng.randint(1, count)]),
            shares=rng.choice([1, 1, 3, 8]),
            latency=rng.choice([1e-5, 0.001, 0.05]),
            crashes=[fault(0) for _ in range(faults)],
            hangs=[fault(1) for _ in range(rng.randint(0, 1) if faulty and scale else 0)],
            killers={rng.randint(1, count)} if faulty and rng.random() < 0.2 else set(),
            holds=[
                (holding.randint(0, 1), holding.uniform(0, horizon), held_up())
                for _ in range(holding.choice([0, 0, 1, 2]))
            ],
            slow_tells={holding.randint(1, count): held_up() for _ in range(holding.choice([0, 0, 1, 3]))},
        )

    def payload(self, index: int) -> dict[str, Any]:
        ops = {f"op{i}": "int8" if (index >> i) & 1 else "fp32" for i in range(6)}
        return {"index": index, "ops": ops}

    def result(self, index: int) -> TrialResult:
        if index in self.failing:
            return TrialResult(accuracy=None, error=f"trial {index} fails", seconds=self.durations[index])
        return TrialResult(accuracy=index / 7, seconds=self.durations[index])


@dataclass
class Searching:
    """What outlives launches: the journal, results that wait, and how many ranks each trial took with it."""

    case: Case
    told: list[Told] = field(default_factory=list)
    losses: Losses = field(default_factory=Losses)
    answered: Answered = field(default_factory=Answered)
    started: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    died: Counter[int] = field(default_factory=Counter)
    """Trial to the ranks that were lost while they were at it."""
    drained: random.Random = field(default_factory=lambda: random.Random(0))
    """Whether a rank was lost when a host did not answer; nothing else is drawn from it."""
    world: Simulation | None = None
    """The present launch's; None in series."""
    spared: int = 0
    """Trials that a launch took from the one before it, though they were not told."""

    @property
    def decided(self) -> bool:
        return bool(self.told) and self.told[-1].index == self.case.stop_at

    def tell(self, told: Told) -> bool:
        assert told.index == len(self.told) + 1, "told out of order"
        self.told.append(told)
        if told.index in self.case.slow_tells and self.world is not None:
            self.world.sleep(0, self.case.slow_tells[told.index])
        return self.decided

    def evaluated(self, comm: Virtual, slave: Slave, payload: dict[str, Any], part: int, parts: int) -> TrialResult:
        index = payload["index"]
        assert payload == self.case.payload(index), "the payload has changed on its way"
        self.started[index, part, parts] += 1
        try:
            if index in self.case.killers:
                comm.die()
            for _ in range(4):  # batches
                comm.sleep(self.case.durations[index] / parts / 4)
                slave.check()
        except Killed:
            self.died[index] += comm.rank in comm.world.lost
            raise
        return self.case.result(index)

    def slave(self, comm: Virtual) -> int:
        def part(payload: Any, part: int, parts: int) -> tuple[int, int]:
            found = self.evaluated(comm, slave, payload, part, parts)
            if found.error:
                raise ValueError(found.error)
            return part, parts

        slave = Slave(comm, Work(lambda payload: self.evaluated(comm, slave, payload, 0, 1), evaluate_part=part))
        return slave.run()

    def master(self, comm: Virtual) -> None:
        def combine(payload: Any, shares: Any) -> TrialResult:
            assert [share[0] for share in shares] == list(range(shares[0][1])), "shares are missing or out of order"
            if self.case.seed % 5 == 0 and payload["index"] % 3 == 0:
                raise ValueError("the shares make no whole")
            return self.case.result(payload["index"])

        def divided(payload: Any) -> int:
            return self.case.shares if payload["index"] % 4 else 1

        shares = divided if self.case.seed % 2 else self.case.shares
        work = Work(lambda _: self.case.result(0), shares=shares, combine=combine)
        whole = [t.result.seconds for t in self.told if t.result.accuracy is not None]
        known = Known(self.case.durations[1], {"": whole} if whole else {})
        master = Master(
            comm,
            work,
            Limits(least=30.0),
            self.losses,
            known=lambda: known,
            answered=self.answered,
            hosts_answer=lambda: self.drained.random() < 0.7,
        )
        try:
            self.search(master)
        finally:
            master.close()
            healthy = comm.given_up - comm.world.lost
            assert not healthy, f"ranks {healthy} live and were given up"

    def search(self, executor: Any) -> None:
        first = 1
        for size in self.case.batches:
            batch = range(first, first + size)
            left = [index for index in batch if index > len(self.told)]
            first += size
            if self.decided:
                return
            if left and executor.run(left[0], [self.case.payload(i) for i in left], self.tell):
                return

    def launch(self, number: int) -> bool:
        """Whether the search has ended."""
        case = self.case
        world = self.world = Simulation(case.ranks, case.seed * 1000 + number, case.latency)
        for launch, rank, time in case.crashes:
            if launch == number:
                world.at(time, lambda rank=rank: world.crash(rank))  # type: ignore[misc]
        for launch, rank, time in case.hangs:
            if launch == number:
                world.at(time, lambda rank=rank: world.hang(rank))  # type: ignore[misc]
        for launch, time, seconds in case.holds:
            if launch == number:
                world.at(time, lambda seconds=seconds: world.hold(0, seconds))  # type: ignore[misc]
        before = len(self.told)
        self.answered.expect({index: str(index) for index in range(1, sum(case.batches) + 1)})
        kept = set(self.answered.known(range(before + 1, sum(case.batches) + 1)))
        started, self.started = self.started, Counter()
        try:
            world.run([self.master, *[self.slave] * (case.ranks - 1)])
        except RanksLostError:
            return False
        finally:
            again = [index for index, _, _ in self.started if index <= before or index in kept]
            assert not again, f"trials {again} were told or answered before and evaluated again"
            self.spared += len(kept)
            self.started += started
        return not world._ranks[0].killed or self.complete

    @property
    def complete(self) -> bool:
        return self.decided or len(self.told) == sum(self.case.batches)


def serial(case: Case) -> list[tuple[int, TrialResult]]:
    searching = Searching(case)
    searching.search(Serial(lambda payload: case.result(payload["index"])))
    return [(told.index, told.result) for told in searching.told]


def check(seed: int) -> Searching:
    case = Case.of(seed)
    searching = Searching(case)
    ended = any(searching.launch(number) for number in range(LAUNCHES))
    assert ended, "the search never ends"
    expected = serial(case)
    assert [told.index for told in searching.told] == [index for index, _ in expected]
    for told, (index, result) in zip(searching.told, expected, strict=True):
        if index in case.killers or (told.result != result and searching.died[index] >= LOSSES):
            assert told.result.accuracy is None
            assert "ranks were lost with this trial" in told.result.error
        else:
            assert told.result == result, f"trial {index}"
    return searching


@pytest.mark.parametrize("group", range(GROUPS))
def test_the_same_history_in_every_world(group: int) -> None:
    size = SEEDS // GROUPS
    for seed in range(group * size, (group + 1) * size):
        try:
            check(seed)
        except (Exception, Killed) as error:
            raise AssertionError(f"seed {seed} fails: {error}\n{Case.of(seed)}") from error


def test_a_relaunch_takes_what_was_answered_before_it_and_not_told() -> None:
    """`launch` sees that none of these is evaluated again; here, that there are some."""
    assert all(check(seed).spared for seed in (161, 201))
