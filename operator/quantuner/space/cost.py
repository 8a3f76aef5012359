"""What a configuration costs at run time, modelled: the same on every machine, so that a search may decide by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantuner.space.capability import Mode, Op
from quantuner.space.config import FP32, OpConfig

WORD = 32
"""Bits of an fp32 weight."""
SCALE = 32
"""Bits of a group's scale."""
ZERO_POINT = 8
"""Bits of a group's zero point, where it has one of whole numbers."""
FACTORS: Mapping[Mode, float] = {
    Mode.FP32: 1.0,
    Mode.BF16: 0.5,  # half the bytes, twice the lanes
    Mode.FP16: 0.5,
    Mode.STATIC: 0.25,  # VNNI multiplies four pairs of bytes where a lane has one fp32
    Mode.DYNAMIC: 0.3,  # as static, and a pass over the activation for its range
}
"""Latency of an op relative to fp32, where its options do not matter."""


def factor(config: OpConfig) -> float:
    """Latency relative to fp32. An op that waits for its weights takes as long as they have bits."""
    return weight_bits(config) / WORD if config.mode is Mode.WEIGHT_ONLY else FACTORS[config.mode]


def weight_bits(config: OpConfig) -> float:
    """Bits per weight under weight_only, what its group adds included; what an output channel adds is left out."""
    group = int(config.get("weight", "group_size"))
    zero_point = 0 if config.get("weight", "scheme") == "sym" else ZERO_POINT
    return int(config.get("weight", "bits")) + ((SCALE + zero_point) / group if group > 0 else 0)


def modelled_latency(config: Mapping[str, OpConfig], ops: Sequence[Op]) -> float:
    """Latency of the quantizable ops together relative to all of them in fp32; an op that is not named is fp32.

    Every op counts by its floating-point operations; where none is known, all count alike.
    """
    total = sum(op.flops for op in ops)
    shares = [op.flops / total if total else 1 / len(ops) for op in ops]
    return sum(share * factor(config.get(op.name, FP32)) for share, op in zip(shares, ops, strict=True))
