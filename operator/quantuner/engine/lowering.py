"""A saved int8 model compiled for this CPU: torch's inductor turns rounding around ops into int8 kernels.

Source: torchao's PT2E tutorial for x86 with inductor. Its patterns want fixed shapes, frozen weights and, for
convolutions, channels last.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.fx import GraphModule
from torch.utils._pytree import tree_leaves, tree_map

from quantuner.engine.quiet import quiet

SHAPES = 8  # for which a compiled model is kept; compiling takes seconds to a minute each
Shapes = tuple[tuple[int, ...], ...]


class Lowered(torch.nn.Module):
    """Compiles at the first call with inputs of new shapes, so let the first call be no user's.

    Without gradients, in one mode. Needs a C++ compiler, as all of inductor on a CPU does; without one the first call
    raises torch's `InvalidCxxCompiler`.
    """

    def __init__(self, model: GraphModule) -> None:
        super().__init__()
        self._model = model
        self._signature = inspect.signature(model.forward)
        self._compiled: dict[Shapes, Any] = {}

    def train(self, mode: bool = True) -> Lowered:
        return self

    def forward(self, *inputs: Any, **named: Any) -> Any:
        inputs = tree_map(_channels_last, self._signature.bind(*inputs, **named).args)
        shapes = tuple(tuple(v.shape) for v in tree_leaves(inputs) if isinstance(v, torch.Tensor))
        with torch.no_grad():
            if shapes in self._compiled:
                return self._compiled[shapes](*inputs)
            if len(self._compiled) >= SHAPES:
                del self._compiled[next(iter(self._compiled))]
            with quiet(), torch._inductor.config.patch(freezing=True):
                compiled = torch.compile(torch.export.export(self._model, inputs).module(), dynamic=False)
                result = compiled(*inputs)
            self._compiled[shapes] = compiled
            return result


def _channels_last(value: Any) -> Any:
    images = isinstance(value, torch.Tensor) and value.dim() == 4
    return value.contiguous(memory_format=torch.channels_last) if images else value
