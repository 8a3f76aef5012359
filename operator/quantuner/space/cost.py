"""What a configuration costs at run time, modelled: the same on every machine, so that a search may decide by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantuner.space.capability import Mode, Op
from quantuner.space.config import OpConfig

FACTORS: Mapping[Mode, float] = {
    Mode.FP32: 1.0,
    Mode.BF16: 0.5,  # half the bytes, twice the lanes
    Mode.FP16: 0.5,
    Mode.STATIC: 0.25,  # VNNI multiplies four pairs of bytes where a lane has one fp32
    Mode.DYNAMIC: 0.3,  # as static, and a pass over the activation for its range
}
"""Latency of an op relative to fp32."""


def modelled_latency(config: Mapping[str, OpConfig], ops: Sequence[Op]) -> float:
    """Latency of the quantizable ops together relative to all of them in fp32; an op that is not named is fp32.

    Every op counts by its floating-point operations; where none is known, all count alike.
    """
    total = sum(op.flops for op in ops)
    shares = [op.flops / total if total else 1 / len(ops) for op in ops]
    modes = [config[op.name].mode if op.name in config else Mode.FP32 for op in ops]
    return sum(share * FACTORS[mode] for share, mode in zip(shares, modes, strict=True))
