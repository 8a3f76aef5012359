"""Batches that a sampler proposes: none twice, the same for the same seed and results, to the end of the space.

Strategies here are asked and told without an engine's trials: which configurations come is all that matters.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.samplers import RandomSampler, TPESampler

from quantuner.api.trial import TrialResult
from quantuner.engine.engine import Engine
from quantuner.space.config import TuneConfig
from quantuner.strategy import TPETuneStrategy, TuneStrategy
from quantuner.strategy.studies import BATCH, Proposals
from tests.unit.records import told
from tests.unit.strategy.judged import searching

SPACE = 25
"""Configurations of Net: two ops with four options and fp32 each."""


class Asked:
    """Proposals of a sampler, and what was told of each: the accuracy is the share of ops in fp32."""

    def __init__(self, strategy: TuneStrategy, sampler: Any, fails: int | None = None) -> None:
        self.strategy, self.fails = strategy, fails
        self.losses: list[float | None] = []
        self.proposals = Proposals(strategy, sampler, self._loss)
        strategy.state.begin(TrialResult(accuracy=1.0, objectives={"performance": 1.0}))

    def _loss(self, config: TuneConfig) -> float | None:
        accuracy = self.strategy.accuracy_of(config)
        self.losses.append(None if accuracy is None else -accuracy)
        return self.losses[-1]

    def batches(self, until: int = SPACE) -> Iterator[list[str]]:
        """The digests of each batch, told up to so many trials: later ones are beyond the search's limit."""
        for batch in self.proposals.stages():
            for config in batch:
                number = self.strategy.trials_count + 1
                if number <= until:
                    self._tell(config, number)
            yield [config.digest for config in batch]

    def _tell(self, config: TuneConfig, number: int) -> None:
        accuracy = sum(op.mode.is_precision for op in config.values()) / len(config)
        failed = number == self.fails
        objectives = {"performance": 1.0}
        trial = told(number, None if failed else accuracy, objectives=objectives, digest=config.digest)
        self.strategy.state.tell(config, trial)


def asked(engine: Engine, folder: Path, sampler: Any, fails: int | None = None, **given: Any) -> Asked:
    limits = {"strategy": "tpe", "strategyKwargs": given}
    return Asked(searching(engine, folder, strategy=TPETuneStrategy, limits=limits), sampler, fails)


@pytest.mark.parametrize(
    ("given", "size"),
    [({}, BATCH), ({"batch_size": 1}, 1), ({"batch_size": 7}, 7), ({"batch_size": 99}, SPACE)],
    ids=str,
)
def test_batches_of_the_size_asked_for_exhaust_the_space_without_a_repeat(
    engine: Engine, tmp_path: Path, given: dict[str, int], size: int
) -> None:
    batches = list(asked(engine, tmp_path, RandomSampler(seed=0), **given).batches())
    whole, rest = divmod(SPACE, size)
    assert [len(batch) for batch in batches] == [size] * whole + [rest] * bool(rest)
    assert len({digest for batch in batches for digest in batch}) == SPACE


@pytest.mark.parametrize("sampler", [RandomSampler, TPESampler])
def test_the_same_seed_and_results_give_the_same_batches(engine: Engine, tmp_path: Path, sampler: Any) -> None:
    runs = [list(asked(engine, tmp_path, sampler(seed=seed), seed=seed).batches()) for seed in (3, 3, 4)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


class CuriousSampler(RandomSampler):
    """Keeps what it knew when it was asked last."""

    known: tuple[float, ...] = ()

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        self.known = tuple(t.value for t in study.trials if t.value is not None)
        return super().sample_independent(study, trial, name, distribution)


def test_a_sampler_knows_every_result_once_but_no_failure(engine: Engine, tmp_path: Path) -> None:
    sampler = CuriousSampler(seed=0)
    run = asked(engine, tmp_path, sampler, fails=3)
    list(run.batches())
    assert (len(run.losses), run.losses.index(None), run.losses.count(None)) == (SPACE, 2, 1)
    before_the_last_batch = run.losses[: SPACE - SPACE % BATCH]
    assert list(sampler.known) == [loss for loss in before_the_last_batch if loss is not None]


def test_where_the_search_has_reached_its_limit_nothing_more_is_proposed(engine: Engine, tmp_path: Path) -> None:
    run = asked(engine, tmp_path, RandomSampler(seed=0))
    assert len(list(run.batches(until=2 * BATCH - 1))) == 2
    assert len(run.losses) == BATCH  # the cut batch is not told


class StubbornSampler(RandomSampler):
    """Always draws the first of all choices."""

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        return distribution.choices[0]


def test_a_sampler_that_repeats_itself_does_not_stop_the_search(engine: Engine, tmp_path: Path) -> None:
    batches = list(asked(engine, tmp_path, StubbornSampler(seed=0)).batches())
    assert len({digest for batch in batches for digest in batch}) == SPACE
