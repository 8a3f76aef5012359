"""Int8 kernels of this processor for the sums of rounded ops, taken where they give the bits of fp32.

Sums of rounded ops are whole numbers; oneDNN multiplies them by their scale and adds the bias, in this order. So its
kernels and fp32 agree wherever fp32 holds the sums exactly. The weight's magnitudes prove that for any input, and the
first samples that an op is given are compared: where they differ, the processor computes in fp32.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

from quantuner.engine.devices import sums_overflow
from quantuner.engine.padding import sees_padding_alone
from quantuner.engine.sums import BIAS, EXACT
from quantuner.engine.switch.flow import NOTHING, After
from quantuner.engine.switch.summed import Summed

logger = logging.getLogger(__name__)

_aten = torch.ops.aten
_onednn = torch.ops.onednn
SAMPLES = 4  # of the first batch, of which the sums are compared
_Layout = torch.memory_format | None


@cache
def are_available() -> bool:
    """Whether this processor adds up products of 8 bits without overflow."""
    found = torch.cpu.get_capabilities()
    return found.get("architecture") == "x86_64" and not sums_overflow(found) and torch.backends.mkldnn.is_available()


class Kernels:
    """Those of one model's ops. Packed weights are kept, as rounded ones are."""

    def __init__(self) -> None:
        self._packed: dict[tuple[object, ...], torch.Tensor] = {}
        self._known: dict[tuple[object, ...], tuple[bool, _Layout]] = {}
        """Whether an op's kernel gives fp32's bits, and in which layout fp32 gives them."""
        self._zeros: dict[int, torch.Tensor] = {}
        """Zero points of so many channels."""

    def compute(
        self, op: Summed, value: torch.Tensor, rounded: Callable[[], torch.Tensor], after: After = NOTHING
    ) -> torch.Tensor | None:
        """What `after` makes of the op's output for its input, of which `rounded` gives the uint8 integers.

        `value` is the input in fp32, or its integers. None where there is no kernel, or none that is proven to give
        fp32's bits.
        """
        key = _key(op, value, after)
        agrees, layout = self._known.get(key, (True, None))
        if not agrees or not _is_proven(op, value):
            return None
        integers = rounded()
        found = self._run(op, integers, after)
        if after.grid is not None and after.grid.quant_max < torch.iinfo(torch.uint8).max:
            found.clamp_(max=after.grid.quant_max)
        if key not in self._known:
            fp32 = op.in_fp32(integers[:SAMPLES].to(torch.float32).sub_(op.grid.zero_point))
            op.weight.forget_fp32()
            agrees, layout = self._known[key] = _agreement(op, found[:SAMPLES], after.of(fp32))
        if not agrees:
            return None
        return found if layout is None else found.contiguous(memory_format=layout)

    def _run(self, op: Summed, integers: torch.Tensor, after: After) -> torch.Tensor:
        values, zero = op.weight.values, op.grid.zero_point
        scales = op.scale.flatten().expand(len(values)).contiguous()
        rest = (scales, self._zero_points(len(values)), op.bias)
        if op.node.target is _aten.linear.default:
            packed = self._pack((op.weight,), lambda: _onednn.qlinear_prepack(values, list(integers.shape)))
            product: torch.Tensor = _onednn.qlinear_pointwise(integers, 1.0, zero, packed, *rest, *_ending(after))
            return product
        how = _how(op)
        packed = self._pack(
            (op.weight, bool(zero), *map(str, how)),
            lambda: _onednn.qconv_prepack(values, scales, 1.0, zero, *how, list(integers.shape)),
        )
        image: torch.Tensor = _onednn.qconv_pointwise(integers, 1.0, zero, packed, *rest, *how, *_ending(after))
        return image

    def _zero_points(self, channels: int) -> torch.Tensor:
        if channels not in self._zeros:
            self._zeros[channels] = torch.zeros(channels, dtype=torch.int32)
        return self._zeros[channels]

    def _pack(self, key: tuple[object, ...], pack: Callable[[], torch.Tensor]) -> torch.Tensor:
        if key not in self._packed:
            self._packed[key] = pack()
        return self._packed[key]


def _is_proven(op: Summed, value: torch.Tensor) -> bool:
    """Whether there is a kernel whose sums fp32 holds exactly, for this input and any other on the grid."""
    is_linear = op.node.target is _aten.linear.default and value.dim() > 1
    is_convolution = op.node.target is _aten.conv2d.default and value.dim() == 4  # not of one image without a batch
    return (
        are_available()
        and bool(torch.backends.mkldnn.enabled)
        and value.device.type == "cpu"
        and value.numel() > 0
        and (is_linear or (is_convolution and not (op.grid.zero_point and _sees_padding_alone(op))))
        and op.weight.is_centred
        and (op.bias is None or op.bias.shape == op.weight.values.shape[:1])
        and op.weight.magnitude * op.grid.magnitude <= EXACT
    )


def _ending(after: After) -> tuple[Any, ...]:
    """oneDNN's arguments for it: scale and zero point of the output, its type, and what comes before it is rounded."""
    scale, type_ = (1.0, torch.float32) if after.grid is None else (after.grid.scale, torch.uint8)
    return (scale, 0, type_, "relu" if after.rectifies else "none", [], "")


def _sees_padding_alone(op: Summed) -> bool:
    _, padding, dilation, _ = _how(op)
    return sees_padding_alone(padding, dilation, op.weight.values.shape[-len(padding) :])


def _key(op: Summed, value: torch.Tensor, after: After) -> tuple[object, ...]:
    """What decides which of oneDNN's kernels computes, and in which layout, besides the number of samples."""
    ending = after.rectifies, after.grid is None
    return op.node, op.weight, bool(op.grid.zero_point), ending, value.shape[1:], value.stride()


def _how(op: Summed) -> tuple[Any, ...]:
    """Stride, padding, dilation and groups of a two-dimensional convolution."""
    given: Sequence[Any] = op.node.args[BIAS + 1 :]
    usual: Sequence[Any] = ([1, 1], [0, 0], [1, 1], 1)
    stride, padding, dilation, groups = [*given, *usual[len(given) :]]
    return _both(stride), _both(padding), _both(dilation), groups


def _both(value: Any) -> list[int]:
    """One number for both dimensions, or one for each."""
    return [*value] * (2 if len(value) == 1 else 1)


def _agreement(op: Summed, found: torch.Tensor, fp32: torch.Tensor) -> tuple[bool, _Layout]:
    if _is_in_both_layouts(found) and op.node.target is _aten.conv2d.default:
        return False, None  # no memory format names fp32's strides, by which a following convolution may choose its own
    if not torch.equal(found, fp32):
        logger.warning("%s: this processor's int8 kernel differs from fp32, which is used instead", op.node.name)
        return False, None
    if found.stride() == fp32.stride():
        return True, None
    return True, torch.contiguous_format if fp32.is_contiguous() else torch.channels_last


def _is_in_both_layouts(image: torch.Tensor) -> bool:
    """As one of one channel, or of one pixel, is."""
    return image.is_contiguous() and image.is_contiguous(memory_format=torch.channels_last)
