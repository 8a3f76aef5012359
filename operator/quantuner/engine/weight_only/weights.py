"""The weights of one model in few bits, made when they are first asked for and kept by op and options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.weight_only.awq import awq
from quantuner.engine.weight_only.gptq import gptq
from quantuner.engine.weight_only.grid import Grid, rounded
from quantuner.engine.weight_only.hqq import hqq
from quantuner.engine.weight_only.inputs import Inputs
from quantuner.engine.weight_only.stored import StoredWeight
from quantuner.space.config import OpConfig

KEPT_BYTES = 128 * 2**20
"""Of stored weights; over it, those that were made first go."""
INPUTS_BYTES = 256 * 2**20
"""Of sums over inputs; ops whose sums do not fit take another pass over the data."""

Collect = Callable[[Sequence[str]], Mapping[str, Inputs]]
"""Takes names of ops; runs the calibration data through the fp32 model and returns their inputs."""


class Weights:
    """Of one fp32 model and one set of calibration data. The same on every rank."""

    def __init__(self, weights: Mapping[str, torch.Tensor], collect: Collect) -> None:
        """`weights` are the fp32 ones, `(out, in)`, by op name, in the model's order."""
        self._weights = weights
        self._collect = collect
        self._inputs: Mapping[str, Inputs] = {}
        self._stored: dict[tuple[str, OpConfig], StoredWeight] = {}
        self._last: dict[str, tuple[OpConfig, torch.Tensor]] = {}

    def fp32(self, name: str, config: OpConfig) -> torch.Tensor:
        """What the stored weight gives; the last one of each op is kept."""
        known, value = self._last.get(name, (None, None))
        if value is None or known != config:
            value = self.stored(name, config)()
            self._last[name] = (config, value)
        return value

    def stored(self, name: str, config: OpConfig) -> StoredWeight:
        """The op's weight under its options. Raises `KeyError` for an op that the model has not."""
        key = (name, config)
        if key not in self._stored:
            with torch.no_grad():
                self._stored[key] = self._made(name, config)
            while sum(weight.nbytes for weight in self._stored.values()) > KEPT_BYTES and len(self._stored) > 1:
                del self._stored[next(iter(self._stored))]
        return self._stored[key]

    def _made(self, name: str, config: OpConfig) -> StoredWeight:
        weight = self._weights[name].detach()
        grid, algorithm = Grid.of(config, weight.shape[1]), config.get("weight", "algorithm")
        if algorithm == "AWQ":
            return awq(weight, self._inputs_of(name), grid)
        if algorithm == "GPTQ":
            on_grid = gptq(grid.padded(weight), self._inputs_of(name), grid)
        else:
            on_grid = (hqq if algorithm == "HQQ" else rounded)(grid.padded(weight), grid)
        return StoredWeight(on_grid, grid, weight.shape[1])

    def _inputs_of(self, name: str) -> Inputs:
        """Collected for as many ops from this one on as fit. Raises `SearchError` where they were not finite."""
        if name not in self._inputs:
            names = list(self._weights)
            following = names[names.index(name) :]
            sizes = [4 * self._weights[one].shape[1] ** 2 for one in following]
            count = next((i for i in range(1, len(sizes)) if sum(sizes[: i + 1]) > INPUTS_BYTES), len(sizes))
            self._inputs = {}  # before the next are there
            self._inputs = self._collect(following[:count])
        found = self._inputs[name]
        if not found.products.isfinite().all():
            raise SearchError(
                Failure.CALIBRATION_FAILED,
                f"the input of {name} was not finite during calibration, or too large for its square; GPTQ and AWQ "
                "cannot look at it: correct the calibration data or the model, or constrain the op to RTN or HQQ",
            )
        return found
