"""A model on the meta device that computes: each module's weights are read before it runs and dropped after it.

Source of the idea: layer_wise_quant of Neural Compressor 2.x.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.layer_wise.checkpoint import Checkpoint


class Weights:
    """What the parameters and buffers of a model on the meta device are, by the checkpoint that has them."""

    def __init__(self, model: nn.Module, checkpoint: Checkpoint) -> None:
        """Raises `SearchError` (TaskInvalid) where the checkpoint lacks one."""
        self.checkpoint = checkpoint
        self._names: dict[tuple[nn.Module, str], str] = {}
        self._known = _by_identity(model, checkpoint)
        for path, module in model.named_modules():
            for name, tensor in own(module).items():
                if tensor.is_meta:
                    self._names[module, name] = self._found(f"{path}.{name}".lstrip("."), tensor)

    def _found(self, name: str, tensor: torch.Tensor) -> str:
        if name in self.checkpoint:
            return name
        tied = self._known.get(id(tensor))
        if tied is None:
            raise SearchError(
                Failure.TASK_INVALID,
                f"the model's {name} is on the meta device, and {self.checkpoint.path} has no tensor of this name; "
                "save it there, or compute it on the CPU",
            )
        return tied

    def read(self, module: nn.Module, name: str) -> torch.Tensor:
        """A module's own tensor, in the type that the model has for it."""
        like = own(module)[name]
        value = self.checkpoint.read(self._names[module, name])
        return value if value.dtype == like.dtype else value.to(like.dtype)

    def of(self, module: nn.Module) -> list[str]:
        """Names of the module's own tensors that are on the meta device."""
        return [name for owner, name in self._names if owner is module]

    def fill(self, module: nn.Module) -> dict[str, torch.Tensor]:
        """Reads a module's own tensors; returns what was in their places."""
        before = {}
        for name in self.of(module):
            before[name] = own(module)[name]
            put(module, name, self.read(module, name))
        return before

    @contextmanager
    def streamed(self, model: nn.Module) -> Iterator[nn.Module]:
        """Inside, `model` computes; no more is in memory than the weights of the modules that are running."""
        stacks: dict[nn.Module, list[dict[str, torch.Tensor]]] = {}

        def before(module: nn.Module, _: Any) -> None:
            stacks.setdefault(module, []).append(self.fill(module))

        def after(module: nn.Module, _: Any, __: Any) -> None:
            for name, value in stacks[module].pop().items():
                put(module, name, value)

        handles = []
        for module in {owner for owner, _ in self._names}:
            handles.append(module.register_forward_pre_hook(before, prepend=True))
            handles.append(module.register_forward_hook(after, always_call=True))
        try:
            yield model
        finally:
            for handle in handles:
                handle.remove()


def _by_identity(model: nn.Module, checkpoint: Checkpoint) -> dict[int, str]:
    """Of tied parameters the checkpoint has one name; the others are found by the parameter that they share."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {id(tensor): name for name, tensor in named if name in checkpoint}


def own(module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's own parameters and buffers, by name."""
    tensors = [*module.named_parameters(recurse=False, remove_duplicate=False)]
    return dict([*tensors, *module.named_buffers(recurse=False, remove_duplicate=False)])


def put(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Makes a tensor a module's parameter or buffer, whichever is there under the name."""
    if name in module._parameters and not isinstance(value, nn.Parameter):
        value = nn.Parameter(value, requires_grad=False)
    setattr(module, name, value)
