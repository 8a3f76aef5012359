"""The engine of a model that cannot be captured: it quantizes Linears in place, weight-only or dynamic."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from torch import nn
from torch.fx import GraphModule

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.spec import INT8_RECIPES, Quantization
from quantuner.api.task import Task
from quantuner.engine import artifact
from quantuner.engine.calibrate import Calibration, calibration_inputs
from quantuner.engine.capture import Captured, digest_of
from quantuner.engine.devices import Features
from quantuner.engine.engine import Engine
from quantuner.engine.evaluate import evaluate
from quantuner.engine.modulewise.modules import TYPE, int8_weight, linears, quantized_copy, weights_of_linears
from quantuner.engine.modulewise.switch import ModuleSwitch, inputs_seen
from quantuner.engine.quantized import QuantizedModel, load
from quantuner.engine.shapes import check_call
from quantuner.engine.sizes import Weight
from quantuner.engine.weight_only.stored import StoredWeight
from quantuner.engine.weight_only.weights import Weights
from quantuner.space.capability import Mode, Op
from quantuner.space.config import OpConfig, TuneConfig

APPROACHES = ("dynamic", "weight_only")
"""Those that need no captured graph."""
logger = logging.getLogger(__name__)


def engine_of(
    task: Task, quantization: Quantization, objectives: Sequence[str], found: Features | None = None
) -> Engine:
    """The engine of a task: of a captured graph where torch.export captures the model, else module by module.

    Raises what `Engine` raises; where the approach needs a graph, ModelNotCapturable names those that do not.
    """
    try:
        return Engine(task, quantization, objectives, found)
    except SearchError as error:
        if error.reason is not Failure.MODEL_NOT_CAPTURABLE:
            raise
        if quantization.approach not in APPROACHES:
            raise SearchError(
                error.reason,
                f"{error.message}. Approach {quantization.approach} needs the captured graph; "
                f"{' and '.join(APPROACHES)} would quantize the model's Linears without one",
                error.traceback,
            ) from error
        logger.warning("%s. Its Linears are quantized module by module", error.message)
        return ModulewiseEngine(task, quantization, objectives, found)


class ModulewiseEngine(Engine):
    """Answers as `Engine`. Ops are the modules of type Linear, in the order in which the model holds them."""

    def __init__(
        self, task: Task, quantization: Quantization, objectives: Sequence[str], found: Features | None = None
    ) -> None:
        """Raises `SearchError` where the approach, a recipe or a precision needs a captured graph."""
        _check(quantization)
        super().__init__(task, quantization, objectives, found)
        self._weights: dict[int, Weights] = {}
        self._switches: dict[int, ModuleSwitch] = {}
        self._calibration: Calibration | None = None
        self._inputs = ""

    def _captured(self, example_inputs: tuple[Any, ...], others: Sequence[tuple[Any, ...]]) -> Captured:
        """The module in place of its graph."""
        model = copy.deepcopy(self.task.model).eval()
        check_call(model, example_inputs)
        ops = tuple(Op(n, TYPE, m.weight.numel(), 2 * m.weight.numel()) for n, m in linears(model))
        if not ops:
            raise SearchError(
                Failure.NOTHING_TO_QUANTIZE,
                f"the model cannot be captured, and module by module only {TYPE} in fp32 is quantized, of which it "
                "has none; give a model that has some",
            )
        return Captured(cast(GraphModule, model), example_inputs, None, ops, digest_of(ops, model))

    def _weights_read(self) -> tuple[Weight, ...]:
        return weights_of_linears(self.captured.graph)

    # --- calibration: no ranges, but data that AWQ and GPTQ look at

    def calibrate(self) -> Calibration:
        calibration: Calibration = {size: {} for size in self.quantization.calibration_sampling_sizes}
        self.use_ranges(calibration)
        return calibration

    def use_ranges(self, calibration: Calibration) -> None:
        self._calibration, self._inputs = calibration, self._inputs_digest() or ""

    def ensure_calibrated(self) -> None:
        if self._calibration is None:
            self.calibrate()

    @property
    def ranges_digest(self) -> str:
        """Identifies the calibration data. Raises `RuntimeError` before they were read."""
        if self._calibration is None:
            raise RuntimeError("calibrate() or use_ranges() comes before the first trial")
        return self._inputs

    # --- models

    def quantized(self, config: TuneConfig) -> Any:
        """A new module, quantized as `config` says."""
        return quantized_copy(
            self.captured.graph, config, self._maker(config), reduce_range=self.quantization.reduce_range
        )

    def switchable(self, config: TuneConfig) -> Any:
        """One module that is switched between configurations."""
        samples = self._samples(config)
        if samples not in self._switches:
            made = ModuleSwitch(self.captured.graph, self._maker(config), reduce_range=self.quantization.reduce_range)
            self._switches = {samples: made}  # each holds a copy of the model
        return self._switches[samples]

    def shares(self, config: TuneConfig) -> int:
        """1: what a module that cannot be captured keeps from one batch to the next is not known."""
        return 1

    def save(self, config: TuneConfig, folder: Path) -> float:
        self.quantized_model(config).save(folder)
        self.saved = self.load(folder)
        accuracy, self.saved_seconds = evaluate(self.saved.model, self.judge)
        return accuracy

    def load(self, folder: Path) -> QuantizedModel:
        return load(folder, self.task.model)

    def quantized_model(self, config: TuneConfig) -> QuantizedModel:
        model: nn.Module = self.quantized(config)
        plain = config.plain() | ({"reduce_range": True} if self.quantization.reduce_range else {})
        return QuantizedModel(model, plain, lambda to: artifact.write_weights(to, model.state_dict(), plain))

    def _maker(self, config: TuneConfig) -> Any:
        weights, fp32 = self._weights_of(self._samples(config)), dict(linears(self.captured.graph))

        def make(name: str, op: OpConfig) -> StoredWeight:
            return weights.stored(name, op) if op.mode is Mode.WEIGHT_ONLY else int8_weight(fp32[name].weight, op)

        return make

    def _samples(self, config: TuneConfig) -> int:
        return config.calib_sampling_size or self.quantization.calibration_sampling_sizes[0]

    def _weights_of(self, samples: int) -> Weights:
        if samples not in self._weights:
            model, count = self.captured.graph, len(self.captured.example_inputs)
            loader = self.task.calib_dataloader
            self._weights[samples] = Weights(
                {name: module.weight for name, module in linears(model)},
                lambda names: inputs_seen(model, calibration_inputs(loader, samples, count), names),
            )
        return self._weights[samples]


def _check(quantization: Quantization) -> None:
    recipes = [name for name in INT8_RECIPES if quantization.recipes.get(name)]
    precisions = [name for name in quantization.precisions if name != Mode.FP32.value]
    for what in (*recipes, *precisions):
        raise SearchError(
            Failure.MODEL_NOT_CAPTURABLE,
            f"the model cannot be captured, and {what} needs its graph; leave {what} out",
        )
