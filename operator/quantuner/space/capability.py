"""What each op of a captured model can do, in the order in which a search tries it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """How an op computes."""

    STATIC = "static"  # int8 weight, activation range from calibration
    DYNAMIC = "dynamic"  # int8 weight, activation range from each batch
    WEIGHT_ONLY = "weight_only"  # weight in few bits, activations in fp32
    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"

    @property
    def is_precision(self) -> bool:
        """Whether it computes in floating point: an op falls back to it."""
        return self in PRECISIONS


PRECISIONS = (Mode.BF16, Mode.FP16, Mode.FP32)
"""In the order in which fallback tries them."""


Options = Mapping[tuple[str, str], tuple[str, ...]]
"""(attribute, item) to the options of that item; the first is the default."""

# Option order is Neural Compressor 2.x's for PyTorch: a search visits options in this order.
_ACTIVATION = {
    ("activation", "dtype"): ("uint8",),
    ("activation", "scheme"): ("asym", "sym"),
    ("activation", "granularity"): ("per_tensor",),
    ("activation", "algorithm"): ("kl", "minmax"),
}
_ACTIVATION_DYNAMIC = {
    ("activation", "dtype"): ("uint8",),
    ("activation", "scheme"): ("asym",),
    ("activation", "granularity"): ("per_tensor",),
    ("activation", "algorithm"): ("minmax",),
}


def _weight(granularity: str) -> dict[tuple[str, str], tuple[str, ...]]:
    return {
        ("weight", "dtype"): ("int8",),
        ("weight", "scheme"): ("sym",),
        ("weight", "granularity"): (granularity,),
        ("weight", "algorithm"): ("minmax",),
    }


PERCENTILE = re.compile(r"percentile(?::([5-9][0-9](?:\.[0-9]{1,6})?))?")
"""`percentile`, or `percentile:99.9` with the percent of values that the range holds; the CRD has the same pattern."""


def on_request(item: tuple[str, str], options: Iterable[str], asked: Iterable[str]) -> tuple[str, ...]:
    """Those of the options `asked` for that an op has besides its `options`, which are all that a search tries unasked.

    Percentile ranges are made from the histogram that kl takes, so they are there where kl is. They are not tried
    unasked: every configuration of a search would then have another index than before they were there.
    """
    if item != ("activation", "algorithm") or "kl" not in options:
        return ()
    return tuple(option for option in asked if PERCENTILE.fullmatch(option))


WEIGHT_ONLY: Options = {
    ("activation", "dtype"): ("fp32",),
    ("weight", "dtype"): ("int",),
    ("weight", "bits"): ("4", "8"),
    ("weight", "group_size"): ("32", "-1", "64", "128"),
    ("weight", "scheme"): ("sym", "asym"),
    ("weight", "algorithm"): ("RTN", "AWQ", "GPTQ", "HQQ"),
}
"""Source: Neural Compressor 2.6's weight-only capability, in its order; HQQ is torchao's.

Groups are along the input channels; -1 is one group per output channel.
"""
WIDE = (("weight", "group_size"),)
"""Items of which a search tries the first option alone, unless the user names some."""
NUMBERS = ("bits", "group_size")
"""Items whose options are whole numbers to users."""

_CONV: Mapping[Mode, Options] = {
    Mode.STATIC: {**_ACTIVATION, **_weight("per_channel")},
    Mode.DYNAMIC: {**_ACTIVATION_DYNAMIC, **_weight("per_tensor")},
}
_LINEAR: Mapping[Mode, Options] = {
    Mode.STATIC: {**_ACTIVATION, **_weight("per_channel")},
    Mode.DYNAMIC: {**_ACTIVATION_DYNAMIC, **_weight("per_channel")},
    Mode.WEIGHT_ONLY: WEIGHT_ONLY,
}
_MATMUL: Mapping[Mode, Options] = {Mode.STATIC: _ACTIVATION}
_RECURRENT: Mapping[Mode, Options] = {Mode.DYNAMIC: {**_ACTIVATION_DYNAMIC, **_weight("per_channel")}}
_EMBEDDING: Mapping[Mode, Options] = {mode: _weight("per_channel") for mode in (Mode.STATIC, Mode.DYNAMIC)}
BY_TYPE: Mapping[str, Mapping[Mode, Options]] = {
    "Conv1d": _CONV,
    "Conv2d": _CONV,
    "Conv3d": _CONV,
    "ConvTranspose1d": _CONV,
    "ConvTranspose2d": _CONV,
    "ConvTranspose3d": _CONV,
    "Linear": _LINEAR,
    "MatMul": _MATMUL,
    "Embedding": _EMBEDDING,
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT,
    "RNN": _RECURRENT,
}
"""Type to what an op of that type can do. MatMul is a product of two activations; an embedding has a scale a row."""


OPT_IN_TYPES = ("MatMul",)
"""Types that stay in high precision until a constraint is about them: inductor has no int8 kernel for them, so that
rounding would cost accuracy and time and save nothing."""


@dataclass(frozen=True)
class Op:
    """A quantizable op of the captured model."""

    name: str
    """Path of the user's module, as `blocks.0.conv1`."""
    type: str
    """Class of the module, a key of BY_TYPE."""
    weight_elements: int = 0
    flops: int = 0
    """Floating-point operations on one sample, all of its calls together."""


@dataclass(frozen=True)
class OpCapability:
    """An op and what is left of its capability."""

    op: Op
    modes: Mapping[Mode, Options]

    @property
    def quantized_modes(self) -> tuple[Mode, ...]:
        return tuple(m for m in self.modes if not m.is_precision)


_APPROACH_MODES = {
    "static": (Mode.STATIC,),
    "dynamic": (Mode.DYNAMIC,),
    "auto": (Mode.STATIC, Mode.DYNAMIC),
    "qat": (Mode.STATIC,),
    "weight_only": (Mode.WEIGHT_ONLY,),
}


def _computes_in(op: Op, mode: Mode) -> bool:
    """Recurrent ops give several values, which casts around them do not know of."""
    return mode is Mode.FP32 or BY_TYPE[op.type] is not _RECURRENT


def _seen_range(options: Options) -> Options:
    item = ("activation", "algorithm")
    return {**options, item: ("minmax",)} if item in options else options


def capability_of(op: Op, approach: str, precisions: Sequence[Mode] = (Mode.FP32,)) -> OpCapability:
    """What `op` can do under an approach, quantized modes first; `precisions` are those the CPU is fast at."""
    modes = BY_TYPE[op.type]
    quantized = {mode: modes[mode] for mode in _APPROACH_MODES[approach] if mode in modes}
    if approach == "qat":  # training learns with the range seen, so only minmax makes sense
        quantized = {mode: _seen_range(options) for mode, options in quantized.items()}
    high = [mode for mode in PRECISIONS if mode in precisions and _computes_in(op, mode)]
    return OpCapability(op, {**quantized, **{mode: {} for mode in high}})


def narrowed(capability: OpCapability) -> OpCapability:
    """What a search tries of a capability where the user says nothing."""
    modes = {
        mode: {item: values[:1] if item in WIDE else values for item, values in options.items()}
        for mode, options in capability.modes.items()
    }
    return OpCapability(capability.op, modes)
