"""The folder in which a quantized model is kept, and its way back."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch._export.serde.serialize import SerializeError
from torch._export.verifier import SpecViolationError
from torch.export.pt2_archive._package import load_pt2
from torch.fx import GraphModule

from quantuner.api.conditions import shorten
from quantuner.api.errors import ArtifactError
from quantuner.engine.capture import Called
from quantuner.engine.card import card
from quantuner.engine.checksums import SUMS_FILE, checked, seal
from quantuner.engine.entrypoint import SAID_LIMIT
from quantuner.engine.graphs import drop_unused
from quantuner.engine.inspection import inspect, refusal
from quantuner.engine.programs import assembled, forget_this_machine, is_flat
from quantuner.engine.quantize import callable_like_a_module
from quantuner.engine.quiet import quiet
from quantuner.engine.recurrent import any_length
from quantuner.engine.serialization import quickly
from quantuner.engine.writing import file_for_torch
from quantuner.space.config import TuneConfig

MODEL_FILE = "model.pt2"
WEIGHTS_FILE = "weights.pt"
"""In place of a program, the tensors of a model that could not be captured."""
CONFIG_FILE = "config.yaml"
REPORT_FILE = "report.json"
CARD_FILE = "README.md"
_OTHERWISE = "leave its recipe out of the search, or let the model compute that with torch's own operators"


def save(folder: Path, model: GraphModule, called: Called, config: TuneConfig) -> None:
    """Writes the model as an exported program and its configuration; an older artifact there is replaced whole."""
    drop_unused(model)
    with quiet(), any_length(), torch.no_grad():
        write(folder, _program(model, called), config.plain())


def _program(model: GraphModule, called: Called) -> torch.export.ExportedProgram:
    if called.calling is not None and is_flat(model):
        try:
            return assembled(model, called.calling)
        except SpecViolationError as error:
            raise ArtifactError(f"the model cannot be saved, since it is no valid program: {error}") from error
    program = torch.export.export(model, called.example_inputs, dynamic_shapes=called.dynamic_shapes)
    program.example_inputs = None  # they are the user's data, and a model is shared
    return program


def write(folder: Path, program: torch.export.ExportedProgram, config: Mapping[str, Any]) -> None:
    """As `save`, of a program that there is already. Raises what `write_with` raises, and `ArtifactError` where torch
    cannot write the program, or `load` would refuse it.
    """

    def write_program(staging: Path) -> None:
        forget_this_machine(program)
        try:
            with quickly(), file_for_torch(staging / MODEL_FILE) as file:
                torch.export.save(program, file)
        except SerializeError as error:
            said = shorten((str(error).splitlines() or [""])[0], SAID_LIMIT)  # a traceback follows
            raise ArtifactError(
                f"the model cannot be saved, since torch cannot write it: {said}; {_OTHERWISE}"
            ) from error
        if problem := refusal(staging / MODEL_FILE):
            raise ArtifactError(
                f"the model cannot be saved, since loading it would be refused: {problem}; {_OTHERWISE}"
            )

    write_with(folder, config, write_program)


def write_weights(folder: Path, weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
    """Writes a state dict of plain tensors in place of a program. Raises what `write_with` raises."""
    plain = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}

    def write_state(staging: Path) -> None:
        with file_for_torch(staging / WEIGHTS_FILE) as file:
            torch.save(plain, file)

    write_with(folder, config, write_state)


def write_with(folder: Path, config: Mapping[str, Any], write_model: Callable[[Path], object]) -> None:
    """Fills a folder beside `folder`, which then takes its place. What cannot be written whole is removed.

    Whoever is killed meanwhile leaves a whole model: the old one, under its name or set aside, or the new one. The
    next one to write here brings back what was set aside, or removes it where there is a newer one.
    Raises `FileExistsError` where the folder holds something else than a saved model.
    """
    folder = folder.resolve()
    staging, aside = (folder.with_name(f".{folder.name}.{kind}") for kind in ("partial", "replaced"))
    if aside.exists() and not folder.exists():
        aside.replace(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / SUMS_FILE).is_file():
        raise FileExistsError(f"{folder} holds something else than a saved model; name a new folder, or empty it")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(aside, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        with quiet():
            write_model(staging)
        (staging / CONFIG_FILE).write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
        seal(staging)
        _take_place(folder, staging, aside)
    finally:  # nothing is there any more, or what a full disk or a refusal has left
        shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(aside, ignore_errors=True)


def _take_place(folder: Path, new: Path, aside: Path) -> None:
    """Renames `new` to `folder`, and what is there to `aside` before; back again where that fails."""
    if folder.exists():
        folder.replace(aside)
    try:
        new.replace(folder)
    except OSError:
        if aside.exists():
            aside.replace(folder)
        raise


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Adds how the model was found, for programs (report.json) and for people (README.md)."""
    config = yaml.safe_load((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    (folder / REPORT_FILE).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    text = card(report, config, captured=(folder / MODEL_FILE).is_file())
    (folder / CARD_FILE).write_text(text, encoding="utf-8")
    seal(folder)


def packed(folder: Path) -> bytes:
    """The folder's files, for another rank."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return content.getvalue()


def unpack(content: bytes, folder: Path) -> Path:
    """Writes what `packed` gave to a folder, and returns it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(folder)
    return folder


def verified(folder: Path) -> dict[str, bytes]:
    """The files of an artifact that are read, by name: its configuration, and its program or its weights.

    Nothing else of the folder needs to be trusted, and no file is read again. Raises `FileNotFoundError` where there is
    no artifact, `ArtifactError` where a file is not what was saved, or no model is among the files that were.
    """
    files = checked(folder, (MODEL_FILE, WEIGHTS_FILE, CONFIG_FILE))
    if CONFIG_FILE not in files or len(files) != 2:
        raise ArtifactError(
            f"{folder / SUMS_FILE} lists {', '.join(files) or 'no file'}, and must list {CONFIG_FILE} and either "
            f"{MODEL_FILE} or {WEIGHTS_FILE}; copy the folder again"
        )
    return files


def load(folder: Path) -> GraphModule:
    """The saved model, called like the user's. Raises what `load_program` raises."""
    return module_of(load_program(folder))


def load_program(folder: Path) -> torch.export.ExportedProgram:
    """The saved program; no code that it holds runs. Raises what `verified` and `program_of` raise."""
    return program_of(verified(Path(folder))[MODEL_FILE], Path(folder) / MODEL_FILE)


def program_of(content: bytes, file: Path) -> torch.export.ExportedProgram:
    """The program in the bytes that were read of `file`. Raises `ArtifactError` where it might run code, or torch reads
    none.

    torch.export.load would do, were it not for files of torch 2.7: what it cannot read it unpickles.
    """
    inspect(io.BytesIO(content), file)
    try:
        with quiet(), quickly():
            programs = load_pt2(io.BytesIO(content)).exported_programs
        (program,) = programs.values()
    except Exception as error:  # whatever torch raises of a damaged one
        said = shorten(f"{type(error).__name__}: {error}", SAID_LIMIT)
        raise ArtifactError(
            f"{file} cannot be loaded by torch {torch.__version__} ({said}); copy the folder again, or save the model "
            "anew with Quantuner"
        ) from error
    return program


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The saved state dict. Raises what `verified` and `weights_of` raise."""
    return weights_of(verified(Path(folder)))


def weights_of(files: Mapping[str, bytes]) -> dict[str, torch.Tensor]:
    """The state dict among the files of an artifact; nothing but tensors is read. Raises `ArtifactError` where there is
    something else.
    """
    try:
        found = torch.load(io.BytesIO(files[WEIGHTS_FILE]), weights_only=True, map_location="cpu")
    except Exception:  # whatever torch raises, which tells how to run what the file holds, too
        found = None
    if not isinstance(found, dict) or not all(isinstance(part, torch.Tensor) for part in found.values()):
        raise ArtifactError(
            f"{WEIGHTS_FILE} holds something else than tensors by name; copy the folder again, or save the model anew "
            "with Quantuner"
        )
    return found


def config_of(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The configuration among the files of an artifact, as `TuneConfig.plain` gives it. Raises `ArtifactError` where
    there is none.
    """
    try:
        found = yaml.safe_load(files[CONFIG_FILE].decode("utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise ArtifactError(f"{CONFIG_FILE} is no YAML ({said}); copy the folder again") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{CONFIG_FILE} holds {found!r:.80}, and must hold a mapping; copy the folder again")
    return found


def module_of(program: torch.export.ExportedProgram) -> GraphModule:
    """The program's model, called like the user's. Raises `ArtifactError` where the program is damaged."""
    try:
        with quiet():
            model = program.module()
    except Exception as error:  # whatever torch raises of what it makes no code of
        said = shorten(f"{type(error).__name__}: {error}", SAID_LIMIT)
        raise ArtifactError(f"the saved program is damaged ({said}); save the model anew with Quantuner") from error
    if not isinstance(model, GraphModule):
        raise TypeError(f"an exported program gave a {type(model).__name__}, not a GraphModule")
    return callable_like_a_module(model)
