"""What strategies ask of a model besides trials: errors and curvature on calibration data."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from quantuner.api.conditions import Failure
from quantuner.engine.entrypoint import users_code
from quantuner.engine.graphs import limited
from quantuner.engine.probes import errors
from quantuner.engine.probes.hessian import Loss, hessian_traces
from quantuner.space.config import FP32, OpConfig, TuneConfig

if TYPE_CHECKING:
    from quantuner.engine.engine import Engine


class Probes:
    """Asked on one rank. The same question has the same answer, on any number of ranks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def single_op_errors(self, config: TuneConfig, metric: str = "mse") -> dict[str, float]:
        """Quantized op to the output's error where it alone is quantized as in `config`.

        `metric` is mse, or kl for the divergence of the outputs' softmax. Raises `ValueError` for another one.
        """
        batches = limited(self._engine.calibration_inputs(config)(), errors.SAMPLES)
        measure = errors.distance(metric)
        fp32 = config.having(dict.fromkeys(config, FP32))
        return errors.output_errors(self._engine.switchable(config), batches, fp32, _quantized(config), measure)

    def own_errors(self, config: TuneConfig) -> dict[str, float]:
        """Quantized op to the error of its own output where it alone is quantized as in `config`: one pass for all."""
        batches = limited(self._engine.calibration_inputs(config)(), errors.SAMPLES)
        return errors.own_errors(self._engine.switchable(config), batches, _quantized(config))

    def leave_one_out_errors(self, config: TuneConfig, batches: int) -> dict[str, float]:
        """Quantized op to the output's error of `config` with that op in fp32, over so many calibration batches."""
        return self._switched(config, dict.fromkeys(_quantized(config), FP32), batches)

    def put_back_errors(self, config: TuneConfig, ops: Mapping[str, OpConfig], batches: int) -> dict[str, float]:
        """Each of `ops` to the output's error of `config` with that op as given there."""
        return self._switched(config, ops, batches)

    def _switched(self, config: TuneConfig, ops: Mapping[str, OpConfig], batches: int) -> dict[str, float]:
        inputs = itertools.islice(self._engine.calibration_inputs(config)(), batches)
        return errors.output_errors(self._engine.switchable(config), inputs, config, ops)

    def activation_errors(self, config: TuneConfig) -> dict[str, float]:
        """Op to the scaled error of its own output under `config`, on the first calibration batch."""
        (inputs,) = itertools.islice(self._engine.calibration_inputs(config)(), 1)
        return errors.activation_errors(self._engine.switchable(config), inputs, config)

    def hessian_traces(self, loss: Loss | str | None, seed: int) -> dict[str, float]:
        """Op to the trace of the loss's Hessian per weight, on the first calibration batch, which has targets."""
        with users_code(Failure.CALIBRATION_FAILED, "reading calib_dataloader"):
            (batch,) = itertools.islice(self._engine.task.calib_dataloader, 1)
        graph = self._engine.switchable(TuneConfig()).program.model
        return hessian_traces(graph, batch, loss, seed)


def _quantized(config: Mapping[str, OpConfig]) -> dict[str, Any]:
    return {name: op for name, op in config.items() if not op.mode.is_precision}
