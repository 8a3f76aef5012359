"""What an op's inputs looked like on the calibration data, as far as GPTQ and AWQ ask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from quantuner.engine.capture import quantizable_nodes
from quantuner.engine.graphs import flat_inputs


@dataclass
class Inputs:
    """Sums over all positions of the calibration data."""

    products: torch.Tensor
    """(in, in) float32: Σ x xᵀ."""
    magnitudes: torch.Tensor
    """(in,) float32: Σ |x|."""
    positions: int = 0

    @classmethod
    def none_of(cls, columns: int, device: torch.device | None = None) -> Inputs:
        return cls(torch.zeros(columns, columns, device=device), torch.zeros(columns, device=device))

    def see(self, value: torch.Tensor) -> None:
        """Adds an op's input `(…, in)`."""
        rows = value.detach().reshape(-1, value.shape[-1]).to(torch.float32)
        self.products += rows.T @ rows
        self.magnitudes += rows.abs().sum(0)
        self.positions += len(rows)


class _Watcher(Interpreter):
    def __init__(self, model: GraphModule, seen: Mapping[str, Inputs]) -> None:
        super().__init__(model)
        names = {node: name for name, _, node in quantizable_nodes(model.graph) if name in seen}
        self._seen = {node: seen[name] for node, name in names.items()}

    def run_node(self, n: Node) -> Any:
        if n in self._seen:
            (value, *_), _ = self.fetch_args_kwargs_from_env(n)
            self._seen[n].see(value)
        return super().run_node(n)


def inputs_of(
    model: GraphModule, batches: Iterable[tuple[Any, ...]], weights: Mapping[str, torch.Tensor], names: Sequence[str]
) -> dict[str, Inputs]:
    """Runs the batches through a captured graph; of an op that is called twice both inputs count."""
    seen = {name: Inputs.none_of(weights[name].shape[1], weights[name].device) for name in names}
    watcher = _Watcher(model, seen)
    with torch.no_grad():
        for batch in batches:
            watcher.run(*flat_inputs(model, batch), enable_io_processing=False)
    return seen
