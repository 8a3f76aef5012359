"""Configurations proposed by an Optuna sampler, in batches whose content depends on nothing but told results."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable, Container, Iterator
from typing import TYPE_CHECKING

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial

from quantuner.space.config import TuneConfig
from quantuner.strategy import arguments
from quantuner.strategy.choices import Choices

if TYPE_CHECKING:
    from quantuner.strategy.base import TuneStrategy

BATCH = 4  # configurations asked at once; strategy_kwargs.batch_size. More keep more ranks busy, but learn later
Picked = tuple[int, ...]
Loss = Callable[[TuneConfig], float | None]
"""What the sampler minimizes; None for a trial that failed."""


class Proposals:
    """Asks a sampler and tells it; never proposes a configuration twice."""

    def __init__(self, strategy: TuneStrategy, sampler: BaseSampler, loss: Loss) -> None:
        self._strategy = strategy
        self._choices = Choices(strategy)
        self._loss = loss
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(range(count)) for name, count in self._choices.dimensions.items()
        }
        self._told: set[Picked] = set()
        self._generator = random.Random(strategy.seed)  # noqa: S311 - a search is no secret
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(sampler=sampler)

    def stages(self) -> Iterator[list[TuneConfig]]:
        """Batches until the space is exhausted."""
        size = arguments.count(self._strategy.tuning.tuning_criterion.strategy_kwargs, "batch_size", BATCH)
        while left := self._choices.count - len(self._told):
            batch = self._ask(min(size, left))
            configs = {picked: self._choices.config(self._named(picked)) for picked in batch}
            yield list(configs.values())
            if not all(self._strategy.has_told(config) for config in configs.values()):
                return  # the search has reached its limit
            for picked, number in batch.items():
                self._tell(picked, number, self._loss(configs[picked]))

    def _ask(self, count: int) -> dict[Picked, int]:
        """New proposals, each with its number in the study. They run until told: the sampler keeps off them."""
        batch: dict[Picked, int] = {}
        while len(batch) < count:
            picked, number = self._suggested()
            if picked in batch or picked in self._told:  # the sampler repeats itself
                self._study.tell(number, state=TrialState.FAIL)
                picked, number = self._nearby(picked, batch)
            batch[picked] = number
        return batch

    def _suggested(self) -> tuple[Picked, int]:
        with calm():
            trial = self._study.ask(self._distributions)
        return tuple(trial.params[name] for name in self._choices.dimensions), trial.number

    def _nearby(self, picked: Picked, batch: Container[Picked]) -> tuple[Picked, int]:
        """A new proposal by a random walk from an old one, a choice at a time."""
        counts = list(self._choices.dimensions.values())
        while picked in batch or picked in self._told:
            place = self._generator.randrange(len(counts))
            picked = (*picked[:place], self._generator.randrange(counts[place]), *picked[place + 1 :])
        params, running = self._named(picked), TrialState.RUNNING
        self._study.add_trial(create_trial(state=running, params=params, distributions=self._distributions))
        return picked, len(self._study.get_trials(deepcopy=False)) - 1

    def _named(self, picked: Picked) -> dict[str, int]:
        return dict(zip(self._choices.dimensions, picked, strict=True))

    def _tell(self, picked: Picked, number: int, loss: float | None) -> None:
        self._told.add(picked)
        self._study.tell(number, loss, state=TrialState.FAIL if loss is None else TrialState.COMPLETE)


@contextlib.contextmanager
def calm() -> Iterator[None]:
    """Optuna marks some samplers as experimental; its version is pinned, and nobody can act on that here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
