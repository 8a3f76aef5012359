"""The quantized model as users hold it: it runs, says its configuration, saves and loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.fx import GraphModule

from quantuner.engine import artifact
from quantuner.engine.graphs import drop_unused
from quantuner.engine.lowering import Lowered


class QuantizedModel(torch.nn.Module):
    """A quantized model, called like the user's. It has one mode: `.eval()` and `.train()` leave it as it is."""

    def __init__(self, model: GraphModule, q_config: dict[str, Any], write: Callable[[Path], object]) -> None:
        super().__init__()
        drop_unused(model)
        self.model = model
        """The quantized graph."""
        self.q_config = q_config
        """The configuration: `ops` by name, `recipes`, `calib_sampling_size`."""
        self._write = write

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.model(*inputs, **named)

    def compiled(self) -> Lowered:
        """The model in int8 kernels of this CPU; each new shape of inputs is compiled at its first call."""
        return Lowered(self.model)

    def save(self, folder: str | Path) -> Path:
        """Writes the model to a folder that `load` reads; returns the folder. A model that is there is replaced.

        Raises `OSError` where it cannot be written.
        """
        self._write(Path(folder))
        return Path(folder)


def load(folder: str | Path) -> QuantizedModel:
    """A saved model. Runs no code of whoever saved it. Raises `FileNotFoundError` where there is none."""
    path = Path(folder)
    program = artifact.load_program(path)
    config = yaml.safe_load((path / artifact.CONFIG_FILE).read_text(encoding="utf-8"))
    return QuantizedModel(artifact.module_of(program), config, lambda target: artifact.write(target, program, config))
