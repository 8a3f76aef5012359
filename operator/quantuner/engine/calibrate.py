"""Calibrates once: one pass over the data collects what every configuration's ranges are made from.

Memory, besides what the model itself computes with: a copy of the weights while it runs, and a histogram of 2,048
float32 (8 KiB) for each op; one more for each op and calibration size is kept. 1,000 ops and the CRD's 8 sizes come to
64 MiB. Activations are never kept.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
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


@dataclass(frozen=True)
class Range:
    """What an op's input looked like. CPU tensors, so that ranks can send it."""

    minimum: torch.Tensor
    """() float32."""
    maximum: torch.Tensor
    """() float32."""
    histogram: torch.Tensor
    """(bins,) float32, counts between minimum and maximum."""


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


class _Collector(Quantizer):  # type: ignore[misc]
    """Puts a histogram observer before every quantizable op; one for all calls of a shared module."""

    def annotate(self, model: GraphModule) -> GraphModule:
        spec = QuantizationSpec(
            dtype=torch.uint8,
            quant_min=0,
            quant_max=255,
            qscheme=torch.per_tensor_affine,
            observer_or_fake_quant_ctr=HistogramObserver,
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
) -> Calibration:
    """Runs the data through the model once and returns every op's range after each number of samples in `sizes`.

    Of a size that is larger than the data, the range over all of them. `read` is given every batch's inputs.
    Raises `SearchError` (CalibrationFailed) where the data raises, is empty, or is not finite.
    """
    with quiet():
        observed = prepare_pt2e(copied(captured.graph), _Collector())
    left, seen = sorted(set(sizes)), 0
    found: Calibration = {}
    for inputs in calibration_inputs(loader, left[-1], len(captured.example_inputs)):
        read(inputs)
        with users_code(Failure.CALIBRATION_FAILED, "calibrating"), quiet(), torch.no_grad():
            observed(*inputs)  # observers warn of infinity, which becomes an error below
        seen += samples_in(inputs)
        while left and seen >= left[0]:
            found[left.pop(0)] = _ranges(observed)
    return found | {size: _ranges(observed) for size in left}


def calibration_inputs(loader: Iterable[Any], samples: int, count: int = 1) -> Iterator[tuple[Any, ...]]:
    """Positional inputs of the calibration batches, until `samples` samples are reached; the model takes `count`.

    Raises `SearchError` (CalibrationFailed) where the data raises, is empty, or is not finite.
    """
    with users_code(Failure.CALIBRATION_FAILED, "calibrating"):
        yield from _batches(loader, samples, count)


def _batches(loader: Iterable[Any], samples: int, count: int) -> Iterator[tuple[Any, ...]]:
    seen = 0
    for batch in loader:
        inputs = model_inputs(batch, count)
        if not all(torch.isfinite(v).all() for v in tree_leaves(inputs) if isinstance(v, torch.Tensor)):
            raise ValueError("a batch of calib_dataloader holds NaN or infinity; correct the calibration data")
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
    low, high = observer.min_val.detach().clone().cpu(), observer.max_val.detach().clone().cpu()
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise SearchError(
            Failure.CALIBRATION_FAILED,
            f"the input of {name} was not finite during calibration ({low.item()} … {high.item()}); "
            "correct the calibration data or the model",
        )
    return Range(low, high, observer.histogram.detach().clone().cpu())


def first_inputs(loader: Iterable[Any], count: int = 1, batches: int = 1) -> list[tuple[Any, ...]]:
    """Inputs of the first so many `batches`, for a model that takes `count`.

    Raises `SearchError` (CalibrationFailed) where there is no batch.
    """
    with users_code(Failure.CALIBRATION_FAILED, "reading calib_dataloader"):
        found = [model_inputs(batch, count) for batch in itertools.islice(loader, batches)]
    if not found:
        raise SearchError(Failure.CALIBRATION_FAILED, "calib_dataloader gave no batch; it must not be empty")
    return found
