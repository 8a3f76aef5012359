"""Ranks that are threads of one process, and a strategy whose trials climb: what each is told is known beforehand."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quantuner.api.trial import Limit, TrialResult
from quantuner.distributed.communicator import Communicator
from quantuner.engine.engine import Engine
from quantuner.engine.shares import TrialShare
from quantuner.space import samplers
from quantuner.space.config import TuneConfig
from quantuner.strategy import TuneStrategy
from tests.unit.distributed.in_memory import World
from tests.unit.engine.models import Net, engine_of, seeded
from tests.unit.strategy.judged import Judge

LADDER = (3, 0, 2, 9, 7)
"""Positions among the op-type-wise configurations. Accuracies rise above all before at trials 1, 2 and 4."""
SECONDS = 10.0
"""What a trial of the ladder takes."""


class OneAtATime(Engine):
    """An engine whose ranks are threads of one process: torch's export is not for two threads at once."""

    lock = threading.RLock()

    def baseline(self) -> TrialResult:
        with self.lock:
            return super().baseline()

    def trial(self, config: TuneConfig, limit: Limit | None = None) -> TrialResult:
        with self.lock:
            return super().trial(config, limit)

    def trial_part(self, config: TuneConfig, part: int, parts: int) -> TrialShare:
        with self.lock:
            return super().trial_part(config, part, parts)

    def save(self, config: TuneConfig, folder: Path) -> float:
        with self.lock:
            return super().save(config, folder)


def shared(engine: Engine) -> OneAtATime:
    """The engine's task, for several ranks."""
    made = OneAtATime(engine.task, engine.quantization, engine.objectives)
    made.calibrate()
    return made


def accurate_engine() -> tuple[Engine, Judge]:
    """An engine that measures nothing but accuracy, so that every objective is known beforehand."""
    judge = Judge()
    return shared(engine_of(seeded(Net), eval_func=judge, objectives=("accuracy",))), judge


def on_ranks(size: int, step: Callable[[Communicator], Any], seed: int = 0) -> list[Any]:
    """What the step returns, or the error that it raises, on each of `size` ranks."""
    world = World(size, seed)
    answers: list[Any] = [None] * size

    def take(rank: int) -> None:
        try:
            answers[rank] = step(world.comm(rank))
        except Exception as error:
            answers[rank] = error
        finally:
            world.end(rank)

    threads = [threading.Thread(target=take, args=(rank,)) for rank in range(1, size)]
    for thread in threads:
        thread.start()
    take(0)
    for thread in threads:
        thread.join()
    return answers


def searched(make: Callable[[], TuneStrategy], ranks: int, seed: int = 0) -> TuneStrategy:
    """Searches over so many ranks, or in series over 0; returns the strategy that told, rank 0's."""
    if not ranks:
        strategy = make()
        strategy.traverse()
        return strategy
    made = [make() for _ in range(ranks)]

    def search(comm: Communicator) -> object:
        made[comm.rank].comm = comm
        return made[comm.rank].traverse()

    failed = [answer for answer in on_ranks(ranks, search, seed) if isinstance(answer, Exception)]
    if failed:
        raise failed[0]
    return made[0]


def rungs(strategy: TuneStrategy) -> list[TuneConfig]:
    """The five configurations of the ladder."""
    options = list(samplers.op_type_wise(strategy.tuning_space.capabilities))
    return [options[position].calibrated_with(100) for position in LADDER]


class LadderTuneStrategy(TuneStrategy):
    """Five configurations, and a clock that trials alone move."""

    def stages(self) -> Iterator[list[TuneConfig]]:
        yield rungs(self)

    def elapsed(self) -> float:
        return SECONDS * self.trials_count
