"""The random strategy: configurations drawn uniformly, each at most once."""

import random
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

from quantuner.space.config import TuneConfig
from quantuner.strategy import arguments
from quantuner.strategy.base import TuneStrategy
from quantuner.strategy.choices import Choices
from quantuner.strategy.registry import strategy_registry


@strategy_registry
class RandomTuneStrategy(TuneStrategy):
    """Every op's configuration and the calibration size drawn uniformly, by a seeded generator.

    Source: Neural Compressor 2.x's RandomTuneStrategy, where every trial was the last configuration.
    """

    accepts = ("seed",)
    checks: ClassVar[Mapping[str, arguments.Check]] = {"seed": arguments.seed}

    def reads_accuracy(self, config: TuneConfig) -> bool:
        return False

    def stages(self) -> Iterator[Iterable[TuneConfig]]:
        yield self._drawn(Choices(self))

    def _drawn(self, choices: Choices) -> Iterator[TuneConfig]:
        generator = random.Random(self.seed)  # noqa: S311 - a search is no secret
        drawn: set[tuple[int, ...]] = set()
        while len(drawn) < choices.count:
            picked = tuple(generator.randrange(count) for count in choices.dimensions.values())
            if picked not in drawn:
                drawn.add(picked)
                yield choices.config(dict(zip(choices.dimensions, picked, strict=True)))
