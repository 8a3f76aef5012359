"""The device that a model is tuned for, and the precisions that it computes fast.

Instructions decide, never a timing: that would differ from run to run, and the tuning space with it.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._pytree import tree_map

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.task import Task
from quantuner.space.capability import PRECISIONS, Mode

INSTRUCTIONS: Mapping[Mode, tuple[str, ...]] = {
    Mode.BF16: ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"),
    Mode.FP16: ("avx512_fp16", "amx_fp16", "fp16_arith"),
}
"""Precision to the instructions that multiply in it, by torch.cpu.get_capabilities' names, x86 and Arm. One is enough.

oneDNN computes in both on older CPUs too (torch.ops.mkldnn._is_mkldnn_bf16_supported asks for AVX-512 alone), but
by converting each operand to fp32, which is no faster than fp32.
"""

Features = Mapping[str, Any]
"""What a device can do, as torch.cpu.get_capabilities says it."""


def features(device: torch.device) -> Features:
    """Of this machine. A GPU that torch runs on multiplies in fp16; in bf16 the newer ones (compute capability 8)."""
    if device.type == "cpu":
        return torch.cpu.get_capabilities()
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    name = torch.cuda.get_device_name(device)
    return {"cpu_name": name, "bf16": bf16, "fp16_arith": True}


def left_out(wanted: Iterable[Mode], found: Features) -> dict[Mode, str]:
    """Those of the `wanted` precisions that a device with the features `found` is not fast at, and why."""
    slow = [mode for mode in wanted if mode in INSTRUCTIONS and not any(found.get(i) for i in INSTRUCTIONS[mode])]
    name = str(found.get("cpu_name", "")).strip() or "this processor"
    return {mode: f"{name} has none of {', '.join(INSTRUCTIONS[mode])}" for mode in slow}


VNNI = ("avx512_vnni", "avx_vnni", "avx10_1", "amx_int8")
"""Instructions of x86 that add products of int8 in 32 bits, by the same names."""


def sums_overflow(found: Features) -> bool:
    """Whether int8 kernels of a CPU with the features `found` add two products in 16 bits, as those of x86 do without
    VNNI. Inputs of 8 bits overflow there, those of 7 (`reduce_range`) do not.

    Source: oneDNN, "Nuances of int8 computations".
    """
    return found.get("architecture") == "x86_64" and not any(found.get(name) for name in VNNI)


def in_order(precisions: Iterable[str]) -> tuple[Mode, ...]:
    """Precisions in the order in which ops fall back to them."""
    named = set(precisions)
    return tuple(mode for mode in PRECISIONS if mode.value in named)


def device_of(name: str) -> torch.device:
    """The device of that name. Raises `SearchError` (ConfigurationInvalid) where this machine has none."""
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SearchError(
            Failure.CONFIGURATION_INVALID,
            f"quantization.device is {name!r}, but torch {torch.__version__} finds no GPU here; give the pods one "
            "(template.resources.limits) and an image whose torch is built for it, or set device to 'cpu'",
        )
    return device


def device_where(model: Any) -> torch.device:
    """Where a model's tensors lie; the CPU for one without any."""
    if not isinstance(model, torch.nn.Module):
        return torch.device("cpu")
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


@dataclass(frozen=True)
class OnDevice:
    """A loader whose batches are moved to a device when they are read."""

    loader: Iterable[Any]
    device: torch.device

    def __iter__(self) -> Iterator[Any]:
        return (moved(batch, self.device) for batch in self.loader)


def on_device(task: Task, device: torch.device) -> Task:
    """The task with a copy of its model, its calibration batches and its example inputs on the device.

    Evaluation and training are the user's functions: they find the model there, and give it inputs there. A task
    that is on the CPU and stays there comes back as it is.
    """
    if device.type == device_where(task.model).type == "cpu":
        return task
    return replace(
        task,
        model=copy.deepcopy(task.model).to(device),
        calib_dataloader=OnDevice(task.calib_dataloader, device),
        example_inputs=moved(task.example_inputs, device),
    )


def moved(value: Any, device: torch.device) -> Any:
    """A value, or a structure of values, with its tensors on the device."""
    return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf, value)
