"""The quantized model as users hold it: it runs, says its configuration, saves and loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule

from quantuner.engine import artifact
from quantuner.engine.graphs import drop_unused
from quantuner.engine.lowering import Lowered
from quantuner.engine.modulewise.loading import with_weights
from quantuner.engine.routing import routes_rows


class QuantizedModel(torch.nn.Module):
    """A quantized model, called like the user's. It has one mode: `.eval()` and `.train()` leave it as it is."""

    def __init__(self, model: torch.nn.Module, q_config: dict[str, Any], write: Callable[[Path], object]) -> None:
        super().__init__()
        if isinstance(model, GraphModule):
            drop_unused(model)
        self.model: Any = model
        """The quantized graph; the user's module with other Linears, where it could not be captured."""
        self.q_config = q_config
        """The configuration: `ops` by name, `recipes`, `calib_sampling_size`."""
        self._write = write

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.model(*inputs, **named)

    def compiled(self, *, max_autotune: bool = False) -> Lowered:
        """The model in int8 kernels of this CPU; each new shape of inputs is compiled at its first call.

        `max_autotune` compiles for longer, a minute instead of seconds, and answers sooner where convolutions, or
        Linears that are all int8, are small, as for one image or a few sentences at a time. Raises `ValueError` for a
        model that could not be captured, for one whose data decide how many rows an op sees, and on a processor without
        VNNI (see `devices.sums_overflow`) for one whose inputs have 8 bits.
        """
        if not isinstance(self.model, GraphModule):
            raise ValueError("the model could not be captured, so it cannot be compiled whole; call it as it is")
        if routes_rows(self.model):
            raise ValueError("data decide how many rows an op sees, and kernels are for fixed shapes; call it as it is")
        return Lowered(self.model, max_autotune=max_autotune)

    def save(self, folder: str | Path) -> Path:
        """Writes the model to a folder that `load` reads; returns the folder. A model that is there is replaced.

        Raises `OSError` where it cannot be written.
        """
        self._write(Path(folder))
        return Path(folder)


def load(folder: str | Path, model: torch.nn.Module | None = None) -> QuantizedModel:
    """A saved model. Runs no code of whoever saved it.

    `model` is the user's own module, in fp32 with any weights, where the saved one could not be captured: a copy of it
    takes the saved weights. Raises `FileNotFoundError` where there is none, `ValueError` where `model` is missing or
    not asked for, `ArtifactError` where a file of the folder is damaged or might run code, or where the parameters of
    `model` are not those of the saved one.
    """
    path = Path(folder)
    files = artifact.verified(path)
    config = artifact.config_of(files)
    if artifact.WEIGHTS_FILE in files:
        return _into(model, path, artifact.weights_of(files), config)
    if model is not None:
        raise ValueError(f"{path} holds a whole program; leave model out")
    program = artifact.program_of(files[artifact.MODEL_FILE], path / artifact.MODEL_FILE)
    return QuantizedModel(artifact.module_of(program), config, lambda target: artifact.write(target, program, config))


def _into(
    model: torch.nn.Module | None, path: Path, weights: dict[str, torch.Tensor], config: dict[str, Any]
) -> QuantizedModel:
    if model is None:
        raise ValueError(
            f"{path} holds the weights of a model that could not be captured; give your fp32 module, as load(folder, "
            "model=MyModel())"
        )
    loaded = with_weights(model, weights, config)
    return QuantizedModel(loaded, config, lambda target: artifact.write_weights(target, loaded.state_dict(), config))
