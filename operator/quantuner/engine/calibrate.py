"""Calibrates once: one pass over the data collects what every configuration's ranges are made from.

Memory, besides what the model itself computes with: a copy of the weights while it runs, and a histogram of 2,048
float32 (8 KiB) for each op; one more for each op and calibration size is kept. 1,000 ops and the CRD's 8 sizes come to
64 MiB. Activations are never kept.
"""

import contextlib
import hashlib
import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_leaves

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.batches import model_inputs, samples_in
from quantuner.engine.capture import Captured, quantizable_nodes
from quantuner.engine.entrypoint import users_code
from quantuner.engine.graphs import copied
from quantuner.engine.operators import inputs_of, range_names
from quantuner.engine.pt2e import (
    HistogramObserver,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
    prepare_pt2e,
)
from quantuner.engine.quiet import quiet
from quantuner.engine.shapes import blaming_inputs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Range:
    """What an op's input looked like. CPU tensors, so that ranks can send it.

    Where it held NaN or infinity its ends say so, and `check_finite` whether that matters.
    """

    minimum: torch.Tensor
    """() float32."""
    maximum: torch.Tensor
    """() float32."""
    histogram: torch.Tensor
    """(bins,) float32, counts between minimum and maximum."""

    @property
    def is_finite(self) -> bool:
        return bool(self.minimum.isfinite() and self.maximum.isfinite())


Ranges = dict[str, Range]
"""Op name to the range of its activation input; that of a second input is called `NAME:1`."""
Calibration = dict[int, Ranges]
"""Number of samples to the ranges after so many."""


def ranges_digest(calibration: Calibration) -> str:
    """16 hex digits over every bit of the ranges: equal for data that calibrates alike."""
    sha = hashlib.sha256()
    for size, ranges in sorted(calibration.items()):
        for name, seen in sorted(ranges.items()):
            sha.update(f"{size} {name}".encode())
            for tensor in (seen.minimum, seen.maximum, seen.histogram):
                sha.update(tensor.to(torch.float32).contiguous().numpy().tobytes())
    return sha.hexdigest()[:16]


class InputObserver(HistogramObserver):  # type: ignore[misc]
    """torchao's, which leaves infinity out without a word, and raises at NaN without an op's name."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._not_finite: tuple[torch.Tensor, torch.Tensor] | None = None
        """Ends of the first input that was not finite; what follows it is not looked at."""

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        if self._not_finite is None and value.numel():
            low, high = torch.aminmax(value.detach())  # a 20th of what a histogram takes
            if low.isfinite() and high.isfinite():
                super().forward(value)
            else:
                self._not_finite = low, high
        return value

    @property
    def range(self) -> Range | None:
        """None before it has seen anything."""
        low, high = self._not_finite or (self.min_val, self.max_val)
        if self._not_finite is None and not self.histogram.any():
            return None
        return Range(*(seen.detach().clone().cpu() for seen in (low, high, self.histogram)))


class _Collector(Quantizer):  # type: ignore[misc]
    """Puts a histogram observer before every quantizable op; one for all calls of a shared module."""

    def annotate(self, model: GraphModule) -> GraphModule:
        spec = QuantizationSpec(
            dtype=torch.uint8,
            quant_min=0,
            quant_max=255,
            qscheme=torch.per_tensor_affine,
            observer_or_fake_quant_ctr=InputObserver,
        )
        first: dict[str, Node] = {}
        for name, _, node in quantizable_nodes(model.graph):
            known = first.setdefault(name, node)
            pairs = zip(inputs_of(node), inputs_of(known), strict=True)
            specs = {source: spec if known is node else SharedQuantizationSpec((one, known)) for source, one in pairs}
            node.meta["quantization_annotation"] = QuantizationAnnotation(input_qspec_map=specs, _annotated=True)
        return model

    def validate(self, model: GraphModule) -> None:
        """Every graph is fine: only inputs are observed."""


def calibrate(
    captured: Captured,
    loader: Iterable[Any],
    sizes: Sequence[int],
    read: Callable[[tuple[Any, ...]], None] = lambda _: None,
    model: torch.nn.Module | None = None,
) -> Calibration:
    """Runs the data through the model once and returns every op's range after each number of samples in `sizes`.

    Of a size that is larger than the data, the range over all of them. `read` is given every batch's inputs,
    and `model`, which was captured, is asked about a batch that the graph refuses.
    Raises `SearchError` (CalibrationFailed) where the data raises, is empty, or holds NaN.
    """
    with quiet():
        observed = prepare_pt2e(copied(captured.graph), _Collector())
    left, seen = sorted(set(sizes)), 0
    found: Calibration = {}
    for inputs in calibration_inputs(loader, left[-1], len(captured.example_inputs)):
        read(inputs)
        blaming = contextlib.nullcontext() if model is None else blaming_inputs(model, inputs)
        with users_code(Failure.CALIBRATION_FAILED, "calibrating"), blaming, quiet(), torch.no_grad():
            observed(*inputs)
        seen += samples_in(inputs)
        while left and seen >= left[0]:
            found[left.pop(0)] = _ranges(observed)
    if left:
        logger.warning(
            "calib_dataloader gave %d samples, of %d that the calibration sampling size asks for: ranges are of those; "
            "give more data, or ask for fewer",
            seen,
            left[-1],
        )
    return found | {size: _ranges(observed) for size in left}


def check_finite(calibration: Calibration, ops: Collection[str]) -> None:
    """Raises `SearchError` (CalibrationFailed) where one of `ops`, which are to be rounded, read NaN or infinity.

    Others may: a mask of -inf that is added to scores is rounded by nobody.
    """
    for name, seen in (item for ranges in calibration.values() for item in ranges.items()):
        if not seen.is_finite and name.partition(":")[0] in ops:
            raise SearchError(
                Failure.CALIBRATION_FAILED,
                f"the input of {name} was not finite during calibration ({seen.minimum.item()} … "
                f"{seen.maximum.item()}); correct the calibration data or the model, or constrain the op to fp32",
            )


def calibration_inputs(loader: Iterable[Any], samples: int, count: int = 1) -> Iterator[tuple[Any, ...]]:
    """Positional inputs of the calibration batches, until `samples` samples are reached; the model takes `count`.

    Raises `SearchError` (CalibrationFailed) where the data raises, is empty, or holds NaN. Infinity may be a mask's.
    """
    with users_code(Failure.CALIBRATION_FAILED, "calibrating"):
        yield from _batches(loader, samples, count)


def _batches(loader: Iterable[Any], samples: int, count: int) -> Iterator[tuple[Any, ...]]:
    seen = 0
    for batch in loader:
        inputs = model_inputs(batch, count)
        if any(torch.isnan(v).any() for v in tree_leaves(inputs) if isinstance(v, torch.Tensor)):
            raise ValueError("a batch of calib_dataloader holds NaN; correct the calibration data")
        yield inputs
        seen += samples_in(inputs)
        if seen >= samples:
            return
    if seen == 0:
        raise ValueError("calib_dataloader gave no batch; it must be iterable more than once and not empty")


def _ranges(observed: GraphModule) -> Ranges:
    return {
        name: _range(observed, source, name)
        for op, _, node in quantizable_nodes(observed.graph)
        for name, source in zip(range_names(op, node), inputs_of(node), strict=True)
    }


def _range(observed: GraphModule, source: Node, name: str) -> Range:
    if source.op != "call_module":
        raise TypeError(f"{name} was not observed; its input is {source!r}")
    observer: Any = observed.get_submodule(str(source.target))
    found: Range | None = observer.range
    if found is None:
        raise SearchError(
            Failure.CALIBRATION_FAILED,
            f"the input of {name} was empty during calibration; give calibration data that reach it",
        )
    return found


def first_inputs(loader: Iterable[Any], count: int = 1, batches: int = 1) -> list[tuple[Any, ...]]:
    """Inputs of the first so many `batches` that hold samples, for a model that takes `count`.

    Raises `SearchError` (CalibrationFailed) where there is no such batch.
    """
    with users_code(Failure.CALIBRATION_FAILED, "reading calib_dataloader"):
        filled = (inputs for batch in loader if samples_in(inputs := model_inputs(batch, count)))
        found = [*itertools.islice(filled, batches)]
    if not found:
        raise SearchError(
            Failure.CALIBRATION_FAILED, "calib_dataloader gave no batch that holds samples; it must not be empty"
        )
    return found
