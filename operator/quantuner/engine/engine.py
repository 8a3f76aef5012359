"""One task's engine: captured and calibrated once, then asked for one configuration after the other."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.spec import Quantization
from quantuner.api.task import Task
from quantuner.engine import artifact, recipes
from quantuner.engine.allocation import release
from quantuner.engine.batches import inputs_wanted, positional
from quantuner.engine.calibrate import (
    Calibration,
    calibrate,
    calibration_inputs,
    check_finite,
    first_inputs,
    ranges_digest,
)
from quantuner.engine.capture import Captured, capture
from quantuner.engine.checks import check, check_not_empty, judge_of
from quantuner.engine.devices import Features, device_of, features, in_order, left_out, on_device
from quantuner.engine.evaluate import evaluate
from quantuner.engine.footprint import MEBI
from quantuner.engine.fresh import FreshModel, FreshProcess
from quantuner.engine.measuring import Measuring
from quantuner.engine.probing import Probes
from quantuner.engine.quantize import quantize
from quantuner.engine.quantized import QuantizedModel, load
from quantuner.engine.ranges import InputsDigest, KeptRanges, calibrated_digest
from quantuner.engine.recipes.scheduler import Algorithms, AlgorithmScheduler
from quantuner.engine.routing import allow_empty
from quantuner.engine.shapes import SHAPES_SEEN
from quantuner.engine.sizes import Weight, bytes_of, saved, weights_of_graph
from quantuner.engine.sums import scale_after_sums
from quantuner.engine.switch.switchable import Switchable
from quantuner.engine.training import Trained, Training, train_quantized
from quantuner.engine.variants import Variants
from quantuner.engine.weight_only.conversion import store_weights
from quantuner.space.capability import Mode, OpCapability
from quantuner.space.config import TuneConfig
from quantuner.space.constraints import constrain
from quantuner.space.cost import modelled_latency
from quantuner.space.fallback import recipe_ops

logger = logging.getLogger(__name__)


def use_threads(count: int) -> None:
    """Sets torch's threads for this process: `count` for an op, one op at a time."""
    torch.set_num_threads(count)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Computes with so many threads, and then with as many as before."""
    before = torch.get_num_threads()
    use_threads(count)
    try:
        yield
    finally:
        use_threads(before)


def threads_in_use() -> int:
    """Torch's threads for an op of this process."""
    return torch.get_num_threads()


def libraries() -> dict[str, str]:
    """Versions of what computes the accuracies."""
    return {"torch": torch.__version__, "torchao": importlib.metadata.version("torchao")}


def cpu_kind() -> str:
    """The instruction set that torch computes with; sums may differ in their last bit between kinds."""
    return torch.backends.cpu.get_cpu_capability()


class Engine(Measuring):
    """Answers what a search asks about one model. Holds the model; is not shared between threads."""

    def __init__(
        self, task: Task, quantization: Quantization, objectives: Sequence[str], found: Features | None = None
    ) -> None:
        """Captures the model. Raises `SearchError` where it cannot be captured or constrained.

        `found` is what the processor can do; None asks it.
        """
        self.quantization = quantization
        self.objectives = tuple(objectives)
        check(task, quantization)
        self.judge = judge_of(task)
        device = device_of(quantization.device)
        self.task = task = on_device(task, device)
        seen = first_inputs(task.calib_dataloader, inputs_wanted(task.model), SHAPES_SEEN)
        given = task.example_inputs
        self.captured = self._captured(seen[0] if given is None else positional(given), seen)
        self.features = features(device) if found is None else found
        self.use_precisions([mode for mode in _wanted(quantization) if mode not in self.left_out])
        check_not_empty(self.captured.ops, quantization)
        self.recipe_ops = recipe_ops(self.captured.ops)
        """Fallback recipe to the names of its ops."""
        self.algorithms: Algorithms | None = None
        """Who fills the scheduler for a trial: a strategy; None applies the configuration's own recipes."""
        self.timed = False
        """Whether trials are compared by measured objectives: each is then converted as a whole, and nothing kept."""
        self.saved: QuantizedModel | None = None
        """The model that was saved last, as it was loaded again."""
        self.fresh: FreshProcess | None = None
        """Where a saved model is loaded and computes; None: in this process."""
        self.saved_seconds = 0.0
        """Wall seconds of its evaluation, not compiled to int8 kernels."""
        self.kept_ranges = KeptRanges()
        """Where calibrated ranges are looked for and kept."""
        self.scheduler = AlgorithmScheduler()
        self.probes = Probes(self)
        self._training, self._trained = Training(task.train_func), Trained()
        self._variants = Variants(self)
        self._bytes, self._read = bytes_of(task.model), self._weights_read()

    def _captured(self, example_inputs: tuple[Any, ...], others: Sequence[tuple[Any, ...]]) -> Captured:
        return capture(self.task.model, example_inputs, others)

    def _weights_read(self) -> tuple[Weight, ...]:
        return weights_of_graph(self.captured.graph)

    @property
    def digest(self) -> str:
        """Identifies ops and weights."""
        return self.captured.digest

    @property
    def types(self) -> dict[str, str]:
        """Op name to op type."""
        return {op.name: op.type for op in self.captured.ops}

    # --- precisions

    precisions: tuple[Mode, ...]
    """What ops may fall back to, in order."""
    space: tuple[OpCapability, ...]
    """What each op can do."""

    @property
    def left_out(self) -> dict[Mode, str]:
        """Precisions that were asked for and that this machine is not fast at, and why."""
        return left_out(_wanted(self.quantization), self.features)

    def use_precisions(self, names: Sequence[str]) -> None:
        """Makes the tuning space anew with these precisions, as rank 0 or a record offers them.

        Raises `SearchError` (RanksDiffer) where this machine is not fast at one of them, and what
        `constrain` raises.
        """
        self.precisions = in_order(names)
        for mode, why in left_out(self.precisions, self.features).items():
            raise SearchError(
                Failure.RANKS_DIFFER,
                f"rank 0 offers {mode.value}, but here {why}; give all ranks processors of one kind "
                f"(template.nodeSelector), or add {mode.value} to quantization.excludedPrecisions",
            )
        self.space = constrain(self.captured.ops, self.quantization, self.precisions, self.left_out)

    # --- calibration

    def calibrate(self) -> Calibration:
        """Gives the model its ranges, kept ones or new; they may be given to other ranks' engines."""
        calibration = self.calibration_of(self.captured)
        self.use_ranges(calibration)
        return calibration

    def calibration_of(self, captured: Captured) -> Calibration:
        """A graph's ranges. Raises `SearchError` (CalibrationFailed) where an op that may be rounded read infinity."""
        calibration = self._ranges_of(captured)
        check_finite(calibration, [one.op.name for one in self.space if {Mode.STATIC, Mode.DYNAMIC} & {*one.modes}])
        return calibration

    def _ranges_of(self, captured: Captured) -> Calibration:
        """Those that are kept, if its data are the same still; else from a pass over the data."""
        sizes, loader, read = self.quantization.calibration_sampling_sizes, self.task.calib_dataloader, InputsDigest()
        if not self.kept_ranges.anywhere:
            return calibrate(captured, loader, sizes, model=self.task.model)
        conditions = (libraries(), cpu_kind(), torch.get_num_threads(), self.quantization.device)
        calibrated = calibrated_digest(captured, sizes, conditions)
        kept = self.kept_ranges.find(calibrated)
        if kept is not None and kept[0] == self._inputs_digest():
            logger.info("the ranges are those of an earlier search on the same data")
            return kept[1]
        calibration = calibrate(captured, loader, sizes, read.update, self.task.model)
        if read.value is not None:
            self.kept_ranges.keep(calibrated, read.value, calibration)
        return calibration

    def _inputs_digest(self) -> str | None:
        """Of what calibration would read."""
        read = InputsDigest()
        samples = max(self.quantization.calibration_sampling_sizes)
        for inputs in calibration_inputs(self.task.calib_dataloader, samples, len(self.captured.example_inputs)):
            read.update(inputs)
        return read.value

    def use_ranges(self, calibration: Calibration) -> None:
        self._variants.use(self.captured, calibration)

    def ensure_calibrated(self) -> None:
        if not self._variants.calibrated:
            self.calibrate()

    @property
    def ranges_digest(self) -> str:
        """Identifies the ranges in use. Raises `RuntimeError` before there are any."""
        return ranges_digest(self._variants.own.calibration)

    def train_with(self, function: Callable[[Any], Any] | None, hooks: Mapping[str, Callable[[Any], Any]]) -> None:
        """Gives the training function, and callbacks by the names on_train_begin and on_train_end.

        Raises `ValueError` for a hook of another name.
        """
        self._training, self._trained = Training(function, hooks), Trained()

    # --- models

    def save(self, config: TuneConfig, folder: Path) -> float:
        """Saves the quantized model, loads it again, and returns the loaded model's accuracy; `saved` holds it.

        It computes in the fresh process, where there is one. Raises what `evaluate` and `FreshProcess` raise.
        """
        if self.fresh is not None:
            self.fresh.prepare()  # it imports while this process converts and writes
        self._variants.forget()  # trials are over, and a converted model and two loaded ones follow
        release()
        artifact.save(folder, self.quantized(config), self.captured.called, config)
        gc.collect()  # what was converted: a graph's nodes refer to each other
        release()
        if self.fresh is not None:
            self.fresh.load(folder / artifact.MODEL_FILE)
        self.saved = self.load(folder)
        model = self.saved.model if self.fresh is None else FreshModel(self.saved.model, self.fresh)
        accuracy, self.saved_seconds = evaluate(model, self.judge)
        return accuracy

    def load(self, folder: Path) -> QuantizedModel:
        """What `save` or a `quantized_model` wrote, of this model. Raises what `quantized.load` raises."""
        return load(folder)

    def quantized(self, config: TuneConfig) -> GraphModule:
        """A new model, quantized as `config` says, recipes and training included."""
        variant = self._variants.of(self._pre_optimized(config))
        captured = variant.captured
        activations = variant.activations(config.calib_sampling_size, self.quantization)
        if self.quantization.approach == "qat":
            model = self._trained.of(config, lambda: train_quantized(captured, activations, config, self._training))
        else:
            model = quantize(captured, activations, config)
        few_bits = variant.few_bits(config.calib_sampling_size, self.quantization, self.task.calib_dataloader)
        store_weights(model, config, lambda name: few_bits.stored(name, config[name]))
        model = recipes.finished(self._corrected(config, captured, model), config.recipes)
        is_trained = self.quantization.approach == "qat"  # it computes as it was trained
        return model if is_trained else allow_empty(scale_after_sums(model))

    def switchable(self, config: TuneConfig) -> Switchable:
        """The model that computes as any quantized one of `config`'s recipes before quantization and its ranges."""
        return self._variants.switchable(self._pre_optimized(config), config.calib_sampling_size)

    def _for_evaluation(self, config: TuneConfig) -> Any:
        """As `quantized` to the bit; without converting, where nothing rewrites the converted model."""
        return self.switchable(config).model(config) if self._is_switched(config) else self.quantized(config)

    def kind(self, config: TuneConfig) -> str:
        """What has to be made for a trial; those of one kind take about as long. Empty where next to nothing has.

        Training, converting, rewriting and searching for few bits may take many times what an evaluation takes.
        """
        made = [] if self._is_switched(config) else ["converted"]
        made += [type(one).__name__ for one in recipes.pre_quantization(config.recipes)]
        made += [type(one).__name__ for one in recipes.post_quantization(config.recipes)]
        few_bits = (op for op in config.values() if op.mode is Mode.WEIGHT_ONLY)
        return " ".join([*made, *sorted({op.get("weight", "algorithm") for op in few_bits} - {"RTN"})])

    def _is_switched(self, config: TuneConfig) -> bool:
        rewritten = self.algorithms is not None and self.algorithms.rewrites_models
        corrected = self.quantization.approach == "qat" or recipes.post_quantization(config.recipes)
        return not (self.timed or rewritten or corrected)

    def _pre_optimized(self, config: TuneConfig) -> Captured:
        self.scheduler.start(self.captured.graph, self.captured.graph, self.calibration_inputs(config))
        if self.algorithms is None:
            self.schedule_pre_quantization(self.scheduler, config, self.captured.graph)
        else:
            self.algorithms.set_param_for_pre_quantization_algos(self.scheduler, config, self.captured.graph)
        return self._variants.optimized(self.scheduler)

    def _corrected(self, config: TuneConfig, optimized: Captured, model: GraphModule) -> GraphModule:
        self.scheduler.start(optimized.graph, model, self.calibration_inputs(config))
        if self.algorithms is None:
            self.schedule_post_quantization(self.scheduler, config, optimized.graph, model)
        else:
            hook = self.algorithms.set_param_for_post_quantization_algos
            hook(self.scheduler, config, optimized.graph, model)
        return self.scheduler()

    def schedule_pre_quantization(self, scheduler: AlgorithmScheduler, config: TuneConfig, _: GraphModule) -> None:
        """Appends the algorithms that `config` wants before quantization: smooth quant."""
        for algorithm in recipes.pre_quantization(config.recipes):
            scheduler.append_algorithm(algorithm)

    def schedule_post_quantization(
        self, scheduler: AlgorithmScheduler, config: TuneConfig, _: GraphModule, __: GraphModule
    ) -> None:
        """Appends those that it wants after: fast bias correction, then weight correction."""
        for algorithm in recipes.post_quantization(config.recipes):
            scheduler.append_algorithm(algorithm)

    def calibration_inputs(self, config: TuneConfig) -> Callable[[], Iterator[tuple[Any, ...]]]:
        """Positional inputs of the calibration batches that `config` is calibrated with; a new pass at each call."""
        samples = config.calib_sampling_size or self.quantization.calibration_sampling_sizes[0]
        return lambda: calibration_inputs(self.task.calib_dataloader, samples, len(self.captured.example_inputs))

    def quantized_model(self, config: TuneConfig) -> QuantizedModel:
        """The model of `config` as users hold it."""
        model, called = self.quantized(config), self.captured.called  # who has the model keeps no fp32 weight by it
        return QuantizedModel(model, config.plain(), lambda folder: artifact.save(folder, model, called, config))

    # --- what a strategy may know of a configuration without a trial

    def size(self, config: TuneConfig) -> float:
        """Modelled MiB of parameters and buffers: a quantized weight has a byte per element."""
        return float(self._bytes - saved(self._read, config)) / MEBI

    def cost(self, config: TuneConfig) -> float:
        """Modelled latency of the quantizable ops relative to fp32."""
        return modelled_latency(config, self.captured.ops)


def _wanted(quantization: Quantization) -> tuple[Mode, ...]:
    """Precisions that the user asks for."""
    return in_order(set(quantization.precisions) - set(quantization.excluded_precisions))
