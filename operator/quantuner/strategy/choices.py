"""The space as independent choices, for strategies that draw configurations: random, bayesian, tpe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from quantuner.space import samplers
from quantuner.space.config import OpConfig, TuneConfig

if TYPE_CHECKING:
    from quantuner.strategy.base import TuneStrategy

SIZE = "calib_sampling_size"


class Choices:
    """Per op the list of its configurations, fallback precisions last; and the calibration sizes."""

    def __init__(self, strategy: TuneStrategy) -> None:
        space = strategy.tuning_space
        self._strategy = strategy
        self.by_op: dict[str, list[OpConfig]] = {
            name: options
            for name, options in samplers.op_wise_candidates(space.capabilities, precisions=True).items()
            if len(options) > 1 and name not in strategy.recipes.off
        }
        self.sizes = tuple(space.calib_sampling_sizes)

    @property
    def dimensions(self) -> dict[str, int]:
        """Name of every choice and how many there are of it; one that is none is left out."""
        sizes = {SIZE: len(self.sizes)} if len(self.sizes) > 1 else {}
        return {**{name: len(options) for name, options in self.by_op.items()}, **sizes}

    @property
    def count(self) -> int:
        """How many configurations there are."""
        return math.prod(self.dimensions.values())

    def config(self, picked: Mapping[str, int]) -> TuneConfig:
        """The configuration of one index per dimension."""
        start = self._strategy.start(self.sizes[picked.get(SIZE, 0)])
        return start.having({name: options[picked[name]] for name, options in self.by_op.items()})
