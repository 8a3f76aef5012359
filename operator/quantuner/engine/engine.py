"""One task's engine: captured and calibrated once, then asked for one configuration after the other."""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.spec import CORRECTIONS, INT8_RECIPES, Quantization
from quantuner.api.task import Task
from quantuner.api.trial import Limit, TrialResult
from quantuner.engine import artifact, recipes
from quantuner.engine.batches import inputs_wanted
from quantuner.engine.calibrate import Calibration, calibrate, calibration_inputs, first_inputs, ranges_digest
from quantuner.engine.capture import Captured, capture
from quantuner.engine.devices import Features, device_of, features, in_order, left_out, on_device
from quantuner.engine.entrypoint import failed_trial
from quantuner.engine.evaluate import evaluate, listening
from quantuner.engine.footprint import MEBI, Footprint
from quantuner.engine.judging import judged_by
from quantuner.engine.metrics import Bounded, Evaluation
from quantuner.engine.probing import Probes
from quantuner.engine.quantize import quantize
from quantuner.engine.quantized import QuantizedModel, load
from quantuner.engine.ranges import InputsDigest, KeptRanges, calibrated_digest
from quantuner.engine.recipes.scheduler import Algorithms, AlgorithmScheduler
from quantuner.engine.shares import TrialShare
from quantuner.engine.switch.switchable import Switchable
from quantuner.engine.training import Trained, Training, train_quantized
from quantuner.engine.variants import Variants
from quantuner.engine.weight_only.conversion import store_weights
from quantuner.space.capability import BY_TYPE, Mode, Op, OpCapability, capability_of
from quantuner.space.config import OpConfig, TuneConfig
from quantuner.space.constraints import constrain
from quantuner.space.cost import WORD, modelled_latency, weight_bits
from quantuner.space.fallback import recipe_ops

logger = logging.getLogger(__name__)

SHARES = 8  # of an evaluation of which it is not known how many batches it has: the record knew the baseline
SHAPES_SEEN = 4  # calibration batches whose shapes are compared: padding by batch differs from one to the next


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


class Engine:
    """Answers what a search asks about one model. Holds the model; is not shared between threads."""

    def __init__(
        self, task: Task, quantization: Quantization, objectives: Sequence[str], found: Features | None = None
    ) -> None:
        """Captures the model. Raises `SearchError` where it cannot be captured or constrained.

        `found` is what the processor can do; None asks it.
        """
        self.quantization = quantization
        self.objectives = tuple(objectives)
        _check(task, quantization)
        self.judge = _judge(task)
        """Model to accuracy."""
        device = device_of(quantization.device)
        self.task = task = on_device(task, device)
        seen = first_inputs(task.calib_dataloader, inputs_wanted(task.model), SHAPES_SEEN)
        self.captured = self._captured(task.example_inputs or seen[0], seen)
        self.features = features(device) if found is None else found
        self.use_precisions([mode for mode in _wanted(quantization) if mode not in self.left_out])
        _check_not_empty(self.captured.ops, quantization)
        self.recipe_ops = recipe_ops(self.captured.ops)
        """Fallback recipe to the names of its ops."""
        self.algorithms: Algorithms | None = None
        """Who fills the scheduler for a trial: a strategy; None applies the configuration's own recipes."""
        self.timed = False
        """Whether trials are compared by measured objectives: each is then converted as a whole, and nothing kept."""
        self.between_batches: Callable[[], None] | None = None
        """Called before each batch of a trial; raises what is to break it off."""
        self.saved: QuantizedModel | None = None
        """The model that was saved last, as it was loaded again."""
        self.saved_seconds = 0.0
        """Wall seconds of its evaluation, not compiled to int8 kernels."""
        self.kept_ranges = KeptRanges()
        """Where calibrated ranges are looked for and kept."""
        self.scheduler = AlgorithmScheduler()
        self.probes = Probes(self)
        self._training, self._trained = Training(task.train_func), Trained()
        self._variants = Variants(self)
        self._bytes = _bytes_of(task.model)

    def _captured(self, example_inputs: tuple[Any, ...], others: Sequence[tuple[Any, ...]]) -> Captured:
        return capture(self.task.model, example_inputs, others)

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
        """A graph's ranges: those that are kept, if its data are the same still; else from a pass over the data."""
        sizes, loader, read = self.quantization.calibration_sampling_sizes, self.task.calib_dataloader, InputsDigest()
        if not self.kept_ranges.anywhere:
            return calibrate(captured, loader, sizes)
        conditions = (libraries(), cpu_kind(), torch.get_num_threads(), self.quantization.device)
        calibrated = calibrated_digest(captured, sizes, conditions)
        kept = self.kept_ranges.find(calibrated)
        if kept is not None and kept[0] == self._inputs_digest():
            logger.info("the ranges are those of an earlier search on the same data")
            return kept[1]
        calibration = calibrate(captured, loader, sizes, read.update)
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

    # --- measuring

    def baseline(self) -> TrialResult:
        """Measures the user's own fp32 model, in evaluation mode as every trial. Raises what `evaluate` raises."""
        model = copy.deepcopy(self.task.model).eval()  # a copy: the user's is not changed
        measured = self.measure(model)
        return replace(measured, rows=self.judge.rows) if isinstance(self.judge, Evaluation) else measured

    def measure(
        self, model: Any, config: TuneConfig | None = None, judge: Callable[[Any], float] | None = None
    ) -> TrialResult:
        """Evaluates a model, and what was configured to be measured of it. Raises what `evaluate` raises.

        `judge` evaluates instead of the task's function.
        """
        with Footprint("footprint" in self.objectives) as footprint:
            accuracy, seconds = evaluate(model, judge or self.judge)
        known = {"performance": seconds, "accuracy": accuracy, "footprint": footprint.mebi}
        known["modelsize"] = _bytes_of(model) / MEBI if config is None else self.size(config)
        return TrialResult(accuracy=accuracy, objectives={o: known[o] for o in self.objectives}, seconds=seconds)

    def trial(self, config: TuneConfig, limit: Limit | None = None) -> TrialResult:
        """Quantizes and measures; what fails in it is the trial's result, not an error of the search.

        Where a limit is given and a built-in metric judges, a trial that is proven to be worse is abandoned.
        """
        started = time.monotonic()
        judge = self.judge
        bounded = Bounded(judge, limit) if limit is not None and isinstance(judge, Evaluation) else None
        try:
            model = self._for_evaluation(config)
            with listening(model, self.between_batches):
                measured = self.measure(model, config, bounded)
        except Exception as error:  # one configuration that fails must not end a search of thousands
            return failed_trial(
                error, "the trial", time.monotonic() - started, None if bounded is None else bounded.bound
            )
        abandoned = bounded is not None and bounded.abandoned
        return replace(measured, is_bound=abandoned, seconds=time.monotonic() - started)

    def shares(self, config: TuneConfig) -> int:
        """Into how many shares a trial can be divided, one a batch; 1 where it cannot.

        The accuracy must be made of sums over rows, and the model be switched: to convert, correct or train it on
        every rank would cost more than is divided, and objectives that trials are compared by are those of one rank.
        """
        judge = self.judge
        if not (isinstance(judge, Evaluation) and judge.divisible and self._is_switched(config)):
            return 1
        return max(1, SHARES if judge.batches is None else judge.batches)

    def trial_part(self, config: TuneConfig, part: int, parts: int) -> TrialShare:
        """Quantizes, and evaluates one share of the batches. Raises what fails in it: the whole trial then says why."""
        started = time.monotonic()
        judge = self._divided_judge()
        model = self._for_evaluation(config)
        with Footprint("footprint" in self.objectives) as footprint, listening(model, self.between_batches):
            evaluating = time.monotonic()
            with torch.no_grad():
                share = judge.share(model, part, parts)
            ended = time.monotonic()
        return TrialShare(share, ended - started, ended - evaluating, footprint.mebi)

    def trial_of_parts(
        self, config: TuneConfig, shares: Sequence[TrialShare], limit: Limit | None = None
    ) -> TrialResult:
        """What `trial` gives, the accuracy to the bit, of all shares in order; seconds are those of all ranks.

        Uses nothing that changes while another thread evaluates. Raises `ValueError` where shares are of other data
        than each other or than the limit's rows, so that only a whole trial tells.
        """
        accuracy, rows = self._divided_judge().together([one.share for one in shares])
        if limit is not None and rows != limit.rows:
            raise ValueError(f"eval_dataloader gave {rows} rows, and {limit.rows} for the baseline")
        if not math.isfinite(accuracy):
            raise ValueError(f"the accuracy is {accuracy}, which is no finite number")
        known = {
            "performance": sum(one.evaluation_seconds for one in shares),
            "accuracy": accuracy,
            "footprint": max(one.footprint for one in shares),
            "modelsize": self.size(config),
        }
        seconds = sum(one.seconds for one in shares)
        return TrialResult(accuracy=accuracy, objectives={o: known[o] for o in self.objectives}, seconds=seconds)

    def _divided_judge(self) -> Evaluation:
        if not (isinstance(self.judge, Evaluation) and self.judge.divisible):
            raise ValueError("only an evaluation by built-in metrics can be divided")
        return self.judge

    def save(self, config: TuneConfig, folder: Path) -> float:
        """Saves the quantized model, loads it again, and returns the loaded model's accuracy; `saved` holds it."""
        artifact.save(folder, self.quantized(config), self.captured, config)
        self.saved = self.load(folder)
        accuracy, self.saved_seconds = evaluate(self.saved.model, self.judge)
        return accuracy

    def load(self, folder: Path) -> QuantizedModel:
        """What `save` or a `quantized_model` wrote, of this model. Raises what `quantized.load` raises."""
        return load(folder)

    # --- models

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
        return recipes.finished(self._corrected(config, captured, model), config.recipes)

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
        model = self.quantized(config)
        return QuantizedModel(model, config.plain(), lambda folder: artifact.save(folder, model, self.captured, config))

    # --- what a strategy may know of a configuration without a trial

    def size(self, config: TuneConfig) -> float:
        """Modelled MiB of parameters and buffers: a quantized weight has a byte per element."""
        saved = sum(op.weight_elements * _saved(config[op.name]) for op in self.captured.ops if op.name in config)
        return float(self._bytes - saved) / MEBI

    def cost(self, config: TuneConfig) -> float:
        """Modelled latency of the quantizable ops relative to fp32."""
        return modelled_latency(config, self.captured.ops)


def _wanted(quantization: Quantization) -> tuple[Mode, ...]:
    """Precisions that the user asks for."""
    return in_order(set(quantization.precisions) - set(quantization.excluded_precisions))


def _check(task: Task, quantization: Quantization) -> None:
    """Raises `SearchError` for a task that cannot be tuned, or not in this way."""
    if not isinstance(task.model, torch.nn.Module):
        raise SearchError(
            Failure.TASK_INVALID, f"Task.model must be a torch.nn.Module, not {type(task.model).__name__}"
        )
    if isinstance(task.calib_dataloader, Iterator):
        raise SearchError(
            Failure.TASK_INVALID,
            f"calib_dataloader is a {type(task.calib_dataloader).__name__}, which can be read once only; give a "
            "list or a DataLoader, which every pass reads anew",
        )
    recipes_of_int8 = [name for name in INT8_RECIPES if quantization.recipes.get(name)]
    if quantization.approach == "weight_only" and recipes_of_int8:
        raise SearchError(
            Failure.CONFIGURATION_INVALID,
            f"quantization.recipes: {' and '.join(recipes_of_int8)} would do nothing, since approach weight_only has "
            "no int8 activations or weights; leave it out, or constrain the weight's algorithm to AWQ or GPTQ",
        )
    corrections = [name for name in CORRECTIONS if quantization.recipes.get(name)]
    if quantization.approach == "qat" and corrections:
        raise SearchError(
            Failure.CONFIGURATION_INVALID,
            f"quantization.recipes: {' and '.join(corrections)} would take back what training (approach qat) has "
            "learnt; leave it out, or choose another approach",
        )


def _judge(task: Task) -> Callable[[Any], float]:
    try:
        return judged_by(task.eval_func, task.eval_dataloader, task.eval_metric)
    except ValueError as error:
        raise SearchError(Failure.TASK_INVALID, f"Task: {error}") from error


def _check_not_empty(ops: Sequence[Op], quantization: Quantization) -> None:
    """Raises `SearchError` where the approach has a mode for none of the model's ops, whatever the user allows."""
    approach = quantization.approach
    if not any(capability_of(op, approach).quantized_modes for op in ops):
        types = [type_ for type_ in BY_TYPE if capability_of(Op("", type_), approach).quantized_modes]
        raise SearchError(
            Failure.NOTHING_TO_QUANTIZE,
            f"quantization.approach: {approach} quantizes {', '.join(types)}, and the model has only "
            f"{', '.join(sorted({op.type for op in ops}))}; choose another approach",
        )


def _bytes_of(model: torch.nn.Module) -> int:
    """Of parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())


def _saved(config: OpConfig) -> float:
    """Bytes per element, of four."""
    mode = config.mode
    if mode is Mode.WEIGHT_ONLY:
        return (WORD - weight_bits(config)) / 8
    return {Mode.FP32: 0, Mode.BF16: 2, Mode.FP16: 2}.get(mode, 3)
