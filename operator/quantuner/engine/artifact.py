"""The folder in which a quantized model is kept, and its way back."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.fx import GraphModule

from quantuner.engine.capture import Captured
from quantuner.engine.graphs import drop_unused
from quantuner.engine.quantize import callable_like_a_module
from quantuner.engine.quiet import quiet
from quantuner.space.config import TuneConfig

MODEL_FILE = "model.pt2"
CONFIG_FILE = "config.yaml"
REPORT_FILE = "report.json"


def save(folder: Path, model: GraphModule, captured: Captured, config: TuneConfig) -> None:
    """Writes the model as an exported program and its configuration; an older artifact there is replaced whole."""
    drop_unused(model)
    with quiet(), torch.no_grad():
        program = torch.export.export(model, captured.example_inputs, dynamic_shapes=captured.dynamic_shapes)
    write(folder, program, config.plain())


def write(folder: Path, program: torch.export.ExportedProgram, config: Mapping[str, Any]) -> None:
    """As `save`, of a program that there is already."""
    staging = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    with quiet():
        torch.export.save(program, staging / MODEL_FILE)
    (staging / CONFIG_FILE).write_text(yaml.safe_dump(dict(config), sort_keys=False))
    shutil.rmtree(folder, ignore_errors=True)
    staging.replace(folder)


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    (folder / REPORT_FILE).write_text(json.dumps(report, indent=2) + "\n")


def load(folder: Path) -> GraphModule:
    """The saved model, called like the user's. Raises `FileNotFoundError` where there is none."""
    return module_of(load_program(folder))


def load_program(folder: Path) -> torch.export.ExportedProgram:
    """The saved program. Raises `FileNotFoundError` where there is none."""
    path = Path(folder) / MODEL_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; name the folder that holds {MODEL_FILE}")
    with quiet():
        return torch.export.load(path)


def module_of(program: torch.export.ExportedProgram) -> GraphModule:
    """The program's model, called like the user's."""
    with quiet():
        model = program.module()
    if not isinstance(model, GraphModule):
        raise TypeError(f"an exported program gave a {type(model).__name__}, not a GraphModule")
    return callable_like_a_module(model)
