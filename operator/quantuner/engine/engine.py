"""One task's engine: captured and calibrated once, then asked for one configuration after the other."""

import copy
import importlib.metadata
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from quantuner.api.conditions import Failure, shorten
from quantuner.api.errors import SearchError
from quantuner.api.journal import ERROR_LIMIT
from quantuner.api.spec import Quantization
from quantuner.api.task import Task
from quantuner.api.trial import TrialResult
from quantuner.engine import artifact
from quantuner.engine.calibrate import Ranges, calibrate, first_inputs, ranges_digest
from quantuner.engine.capture import capture
from quantuner.engine.entrypoint import user_error
from quantuner.engine.evaluate import evaluate
from quantuner.engine.quantize import Activations, quantize
from quantuner.space.capability import Mode, OpCapability
from quantuner.space.config import TuneConfig
from quantuner.space.constraints import constrain

logger = logging.getLogger(__name__)

MEBI = 2**20


def use_threads(count: int) -> None:
    """Sets torch's threads for this process: `count` for an op, one op at a time."""
    torch.set_num_threads(count)


def libraries() -> dict[str, str]:
    """Versions of what computes the accuracies."""
    return {"torch": torch.__version__, "torchao": importlib.metadata.version("torchao")}


def cpu_kind() -> str:
    """The instruction set that torch computes with; sums may differ in their last bit between kinds."""
    return torch.backends.cpu.get_cpu_capability()


class Engine:
    """Answers what a search asks about one model. Holds the model; is not shared between threads."""

    def __init__(self, task: Task, quantization: Quantization, objectives: Sequence[str]) -> None:
        """Captures the model. Raises `SearchError` where it cannot be captured or constrained."""
        self.task = task
        self.quantization = quantization
        self.objectives = tuple(objectives)
        if not isinstance(task.model, torch.nn.Module):
            raise SearchError(
                Failure.TASK_INVALID, f"Task.model must be a torch.nn.Module, not {type(task.model).__name__}"
            )
        self.captured = capture(task.model, task.example_inputs or first_inputs(task.calib_dataloader))
        self.space: tuple[OpCapability, ...] = constrain(self.captured.ops, quantization)
        self._activations: Activations | None = None
        self._bytes = sum(t.numel() * t.element_size() for t in task.model.state_dict().values())

    @property
    def digest(self) -> str:
        """Identifies ops and weights."""
        return self.captured.digest

    @property
    def types(self) -> dict[str, str]:
        """Op name to op type."""
        return {op.name: op.type for op in self.captured.ops}

    def calibrate(self) -> Ranges:
        """Runs the calibration data through the model; the ranges may be given to other ranks' engines."""
        ranges = calibrate(self.captured, self.task.calib_dataloader, self.quantization.calibration_sampling_size)
        self.use_ranges(ranges)
        return ranges

    @property
    def ranges_digest(self) -> str:
        """Identifies the ranges in use. Raises `RuntimeError` before there are any."""
        return ranges_digest(self._calibrated().ranges)

    def use_ranges(self, ranges: Ranges) -> None:
        self._activations = Activations(ranges)

    def baseline(self) -> TrialResult:
        """Measures the user's own fp32 model, in evaluation mode as every trial. Raises what `evaluate` raises."""
        model = copy.deepcopy(self.task.model).eval()  # a copy: the user's is not changed
        accuracy, seconds = evaluate(model, self.task.eval_func)
        return TrialResult(accuracy=accuracy, objectives=self._objectives(seconds, TuneConfig()), seconds=seconds)

    def trial(self, config: TuneConfig) -> TrialResult:
        """Quantizes and measures; what fails in it is the trial's result, not an error of the search."""
        started = time.monotonic()
        try:
            accuracy, seconds = evaluate(self._quantized(config), self.task.eval_func)
        except Exception as error:  # one configuration that fails must not end a search of thousands
            known = error if isinstance(error, SearchError) else user_error(Failure.INTERNAL_ERROR, "the trial", error)
            logger.warning("a trial failed: %s\n%s", known.message, known.traceback)
            return TrialResult(
                accuracy=None,
                seconds=time.monotonic() - started,
                error=shorten(known.message, ERROR_LIMIT),
                traceback=known.traceback,
            )
        return TrialResult(
            accuracy=accuracy,
            objectives=self._objectives(seconds, config),
            seconds=time.monotonic() - started,
        )

    def save(self, config: TuneConfig, folder: Path) -> float:
        """Saves the quantized model, loads it again, and returns the loaded model's accuracy."""
        artifact.save(folder, self._quantized(config), self.captured, config)
        accuracy, _ = evaluate(artifact.load(folder), self.task.eval_func)
        return accuracy

    def _quantized(self, config: TuneConfig) -> torch.fx.GraphModule:
        return quantize(self.captured, self._calibrated(), config)

    def _calibrated(self) -> Activations:
        if self._activations is None:
            raise RuntimeError("calibrate() or use_ranges() comes before the first trial")
        return self._activations

    def _objectives(self, seconds: float, config: TuneConfig) -> dict[str, float]:
        saved = 3 * sum(op.weight_elements for op in self.captured.ops if _is_int8(config, op.name))
        known = {"performance": seconds, "modelsize": (self._bytes - saved) / MEBI}
        return {name: known[name] for name in self.objectives}


def _is_int8(config: TuneConfig, name: str) -> bool:
    return name in config and config[name].mode is not Mode.FP32
