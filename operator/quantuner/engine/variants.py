"""The captured model and what pre-quantization algorithms made of it, each calibrated once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch.fx import GraphModule

from quantuner.api.spec import Quantization
from quantuner.engine.calibrate import Calibration, calibration_inputs
from quantuner.engine.capture import Captured
from quantuner.engine.graphs import folded
from quantuner.engine.quantize import Activations
from quantuner.engine.recipes.scheduler import AlgorithmScheduler
from quantuner.engine.switch.memory import BUDGET_BYTES
from quantuner.engine.switch.rounding import RoundedWeights
from quantuner.engine.switch.switchable import Switchable
from quantuner.engine.weight_only.conversion import weights_of
from quantuner.engine.weight_only.weights import Weights

if TYPE_CHECKING:
    from quantuner.engine.engine import Engine

KEPT = 8  # variants beside the model itself; a search tries few, and each holds a copy of the weights


@dataclass
class Variant:
    """An fp32 graph and its ranges."""

    captured: Captured
    calibration: Calibration
    _activations: dict[int, Activations] = field(default_factory=dict)
    _fused: GraphModule | None = None
    _switchables: dict[int, Switchable] = field(default_factory=dict)
    _weights: RoundedWeights = field(default_factory=RoundedWeights)
    _few_bits: dict[int, Weights] = field(default_factory=dict)

    def activations(self, size: int, quantization: Quantization) -> Activations:
        """Scales and zero points from the ranges of `size` samples; 0 is the first configured size."""
        samples = size or quantization.calibration_sampling_sizes[0]
        if samples not in self._activations:
            ranges = self.calibration[samples]
            self._activations[samples] = Activations(ranges, reduce_range=quantization.reduce_range)
        return self._activations[samples]

    @property
    def fused(self) -> GraphModule:
        """The graph with batch norms folded in."""
        if self._fused is None:
            self._fused = folded(self.captured.graph)
        return self._fused

    def few_bits(self, size: int, quantization: Quantization, loader: Iterable[Any]) -> Weights:
        """Weights of weight-only ops, made with the inputs of `size` samples of the calibration data."""
        samples = size or quantization.calibration_sampling_sizes[0]
        if samples not in self._few_bits:
            count = len(self.captured.example_inputs)
            self._few_bits[samples] = weights_of(self.fused, lambda: calibration_inputs(loader, samples, count))
        return self._few_bits[samples]

    def switchable(self, size: int, quantization: Quantization, loader: Iterable[Any]) -> Switchable:
        """The model that is switched between configurations whose ranges are those of `size` samples."""
        samples = size or quantization.calibration_sampling_sizes[0]
        if samples not in self._switchables:
            work = {op.name: float(op.flops) for op in self.captured.ops}
            activations = self.activations(samples, quantization)
            few_bits = self.few_bits(samples, quantization, loader)
            self._switchables[samples] = Switchable(
                self.fused, activations, work, BUDGET_BYTES, self._weights, few_bits
            )
        return self._switchables[samples]

    def forget(self) -> None:
        """Drops rounded weights and values."""
        self._switchables.clear()
        self._weights = RoundedWeights()


class Variants:
    """Keeps the model itself and, by their keys, the last few that algorithms changed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._own: Variant | None = None
        self._optimized: dict[str, Captured] = {}
        self._known: dict[int, Variant] = {}
        self._switched: Switchable | None = None

    def switchable(self, captured: Captured, size: int) -> Switchable:
        """Of a graph and a calibration size. One at a time keeps values, so that there is one budget."""
        engine = self._engine
        found = self.of(captured).switchable(size, engine.quantization, engine.task.calib_dataloader)
        if self._switched is not None and self._switched is not found:
            self._switched.forget()
        self._switched = found
        return found

    def forget(self) -> None:
        """Drops what is kept for further trials; one that follows makes it anew."""
        for variant in (self._own, *self._known.values()):
            if variant is not None:
                variant.forget()
        self._switched = None

    @property
    def calibrated(self) -> bool:
        return self._own is not None

    @property
    def own(self) -> Variant:
        """The user's model. Raises `RuntimeError` before it is calibrated."""
        if self._own is None:
            raise RuntimeError("calibrate() or use_ranges() comes before the first trial")
        return self._own

    def use(self, captured: Captured, calibration: Calibration) -> None:
        self._own = Variant(captured, calibration)

    def optimized(self, scheduler: AlgorithmScheduler) -> Captured:
        """What the scheduled algorithms make of the model; the model itself where none is scheduled.

        Algorithms that all have a `key` are run once for it, on the data of the largest calibration size; one without
        runs for every trial, on that trial's data.
        """
        captured = self._engine.captured
        if not scheduler.algorithms:
            return captured
        keys = [getattr(algorithm, "key", "") for algorithm in scheduler.algorithms]
        key = " ".join(keys) if all(keys) else ""
        if not key:
            self._drop(key)
        if key not in self._optimized:
            if len(self._optimized) >= KEPT:
                self._drop(next(iter(self._optimized)))
            if key:
                scheduler.batches = self._all_batches  # ranks meet the calibration sizes in different orders
            self._optimized[key] = replace(captured, graph=scheduler())
        return self._optimized[key]

    def _all_batches(self) -> Iterator[tuple[Any, ...]]:
        """A pass over the calibration data as far as the largest size wants it."""
        engine = self._engine
        sizes = engine.quantization.calibration_sampling_sizes
        return calibration_inputs(engine.task.calib_dataloader, max(sizes), len(engine.captured.example_inputs))

    def of(self, captured: Captured) -> Variant:
        """A graph with its ranges; one that algorithms made is calibrated here, the same way on every rank."""
        if captured is self._engine.captured:
            return self.own
        if id(captured) not in self._known:
            self._known[id(captured)] = Variant(captured, self._engine.calibration_of(captured))
        return self._known[id(captured)]

    def _drop(self, key: str) -> None:
        self._known.pop(id(self._optimized.pop(key, None)), None)
