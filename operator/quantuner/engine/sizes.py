"""Bytes of a model's tensors, and of those that a configuration would store in their place."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch.fx import GraphModule

from quantuner.engine.capture import quantizable_nodes
from quantuner.engine.graphs import attribute, path_of
from quantuner.engine.operators import weights_of
from quantuner.space.capability import Mode
from quantuner.space.config import FP32, OpConfig
from quantuner.space.cost import WORD, weight_bits


@dataclass(frozen=True)
class Weight:
    """A parameter in float32 that ops read."""

    elements: int
    ops: tuple[str, ...]
    """Names of all that read it; a tied weight has several."""
    read_otherwise: bool
    """Whether something that is no op reads it, too, so that it stays."""


def bytes_of(model: torch.nn.Module) -> int:
    """Of parameters and buffers; one that the model holds twice counts once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *model.buffers()])


def weights_of_graph(model: GraphModule) -> tuple[Weight, ...]:
    """Of a captured graph."""
    names = {node: name for name, _, node in quantizable_nodes(model.graph)}
    values: dict[int, torch.Tensor] = {}
    readers: dict[int, list[str | None]] = {}
    """None is one that is no op, or does not read it as its weight."""
    for read in model.graph.find_nodes(op="get_attr"):
        value = attribute(model, path_of(read))
        values[id(value)] = value
        by = [names[user] if user in names and read in weights_of(user) else None for user in read.users]
        readers.setdefault(id(value), []).extend(by)
    return tuple(
        Weight(values[one].numel(), tuple(dict.fromkeys(filter(None, by))), None in by)
        for one, by in readers.items()
        if any(by)
    )


def saved(weights: Iterable[Weight], config: Mapping[str, OpConfig]) -> float:
    """Bytes by which a model that is quantized so is smaller, scales and zero points left out.

    Ops that read one weight share what is stored of it where they read it in the same form; else each form is stored,
    and the fp32 one beside it where any of them reads that.
    """
    return sum(_saved(weight, config) for weight in weights)


def _saved(weight: Weight, config: Mapping[str, OpConfig]) -> float:
    forms = dict(_form(name, config.get(name, FP32)) for name in weight.ops)
    if weight.read_otherwise:
        forms[Mode.FP32] = WORD
    return weight.elements * (WORD - sum(forms.values())) / 8


def _form(name: str, config: OpConfig) -> tuple[Hashable, float]:
    """What the stored weight is told from others by, and the bits of an element."""
    mode = config.mode
    if mode is Mode.WEIGHT_ONLY:
        return name, weight_bits(config)
    if mode.is_precision:
        return mode, WORD if mode is Mode.FP32 else WORD / 2
    return (config.get("weight", "granularity"), config.get("weight", "scheme")), WORD / 4
