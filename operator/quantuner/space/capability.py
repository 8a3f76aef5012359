"""What each op of a captured model can do, in the order in which a search tries it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """How an op computes."""

    STATIC = "static"  # int8 weight, activation range from calibration
    DYNAMIC = "dynamic"  # int8 weight, activation range from each batch
    FP32 = "fp32"


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


_CONV: Mapping[Mode, Options] = {
    Mode.STATIC: {**_ACTIVATION, **_weight("per_channel")},
    Mode.DYNAMIC: {**_ACTIVATION_DYNAMIC, **_weight("per_tensor")},
    Mode.FP32: {},
}
_LINEAR: Mapping[Mode, Options] = {
    Mode.STATIC: {**_ACTIVATION, **_weight("per_channel")},
    Mode.DYNAMIC: {**_ACTIVATION_DYNAMIC, **_weight("per_channel")},
    Mode.FP32: {},
}
BY_TYPE: Mapping[str, Mapping[Mode, Options]] = {
    "Conv1d": _CONV,
    "Conv2d": _CONV,
    "Conv3d": _CONV,
    "Linear": _LINEAR,
}


@dataclass(frozen=True)
class Op:
    """A quantizable op of the captured model."""

    name: str
    """Path of the user's module, as `blocks.0.conv1`."""
    type: str
    """Class of the module, a key of BY_TYPE."""
    weight_elements: int = 0


@dataclass(frozen=True)
class OpCapability:
    """An op and what is left of its capability."""

    op: Op
    modes: Mapping[Mode, Options]

    @property
    def quantized_modes(self) -> tuple[Mode, ...]:
        return tuple(m for m in self.modes if m is not Mode.FP32)


_APPROACH_MODES = {
    "static": (Mode.STATIC, Mode.FP32),
    "dynamic": (Mode.DYNAMIC, Mode.FP32),
    "auto": (Mode.STATIC, Mode.DYNAMIC, Mode.FP32),
}


def capability_of(op: Op, approach: str) -> OpCapability:
    """What `op` can do under an approach: static, dynamic or auto."""
    modes = BY_TYPE[op.type]
    return OpCapability(op, {mode: modes[mode] for mode in _APPROACH_MODES[approach] if mode in modes})
