"""Saved weights put into the user's own module: what is read are tensors and names, never code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from quantuner.api.errors import ArtifactError
from quantuner.engine.modulewise.modules import linears, quantized_copy
from quantuner.engine.weight_only.grid import Grid, Rounded
from quantuner.engine.weight_only.stored import StoredWeight
from quantuner.space.capability import Mode
from quantuner.space.config import OpConfig, TuneConfig


def with_weights(model: nn.Module, weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> nn.Module:
    """A copy of the fp32 module, quantized as `config` (a `TuneConfig.plain`) says, with the saved tensors.

    Raises `ArtifactError` where the module has not the ops, the parameters or the shapes of the one that was saved.
    """
    ops = TuneConfig.from_plain(config).ops
    known = dict(linears(model))
    missing = [name for name, op in ops.items() if name not in known and not op.mode.is_precision]
    if missing:
        raise ArtifactError(f"the module has no Linear {', '.join(missing)}; give the class that was quantized")
    found = quantized_copy(
        model,
        ops,
        lambda name, op: _empty(known[name], op, weights, f"{name}.stored."),
        reduce_range=bool(config.get("reduce_range", False)),
    )
    try:
        found.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ArtifactError(
            f"the saved weights do not fit the module ({error}); give the class that was quantized"
        ) from (error)
    return found


def _empty(module: nn.Linear, op: OpConfig, weights: Mapping[str, torch.Tensor], prefix: str) -> StoredWeight:
    """A stored weight of the right shapes, whose values are loaded later."""
    rows, columns = module.weight.shape
    grid = Grid.of(op, columns) if op.mode is Mode.WEIGHT_ONLY else Grid(8, columns, symmetric=True)
    width = columns + -columns % grid.group
    zero_point = weights.get(f"{prefix}zero_point")
    values = torch.zeros(rows, width, dtype=torch.int8)
    on_grid = Rounded(
        values,
        torch.ones(rows, width // grid.group),
        None if zero_point is None else torch.zeros(rows, width // grid.group, dtype=zero_point.dtype),
    )
    scaled = torch.ones(columns) if f"{prefix}input_scale" in weights else None
    return StoredWeight(on_grid, grid, columns, scaled)
