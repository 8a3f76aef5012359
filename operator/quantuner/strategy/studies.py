"""Configurations proposed by an Optuna sampler, in batches whose content depends on nothing but told results."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial

from quantuner.space.config import TuneConfig
from quantuner.strategy.arguments import count
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
        self._told: dict[Picked, float | None] = {}
        self._generator = random.Random(strategy.seed)  # noqa: S311 - a search is no secret
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(sampler=sampler)

    def stages(self) -> Iterator[list[TuneConfig]]:
        """Batches until the space is exhausted."""
        size = count(self._strategy.tuning.tuning_criterion.strategy_kwargs, "batch_size", BATCH)
        while left := self._choices.count - len(self._told):
            batch = self._ask(min(size, left))
            yield list(batch.values())
            if not all(self._strategy.has_told(config) for config in batch.values()):
                return  # the search has reached its limit
            for picked, config in batch.items():
                self._tell(picked, self._loss(config))

    def _ask(self, count: int) -> dict[Picked, TuneConfig]:
        batch: dict[Picked, TuneConfig] = {}
        while len(batch) < count:
            picked = self._suggested()
            while picked in batch or picked in self._told:  # the sampler repeats itself: explore instead
                picked = tuple(self._generator.randrange(k) for k in self._choices.dimensions.values())
            batch[picked] = self._choices.config(dict(zip(self._choices.dimensions, picked, strict=True)))
        return batch

    def _suggested(self) -> Picked:
        with calm():
            trial = self._study.ask(self._distributions)
            # Told as failed at once: a proposal's result is added as a trial of its own, whoever proposed it.
            self._study.tell(trial, state=TrialState.FAIL)
        return tuple(trial.params[name] for name in self._choices.dimensions)

    def _tell(self, picked: Picked, loss: float | None) -> None:
        self._told[picked] = loss
        if loss is not None:
            params = dict(zip(self._choices.dimensions, picked, strict=True))
            self._study.add_trial(create_trial(params=params, distributions=self._distributions, value=loss))


@contextlib.contextmanager
def calm() -> Iterator[None]:
    """Optuna marks some samplers as experimental; its version is pinned, and nobody can act on that here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
