"""What a saved program may hold, so that loading and running it runs no code of whoever saved it.

torch.export.load unpickles tensors that ask for it, custom objects and example inputs, evaluates expressions of sizes
as Python, makes source code of names, and calls any function of torch that a node names, those of the operating system
included. A program that Quantuner saved needs none of it. The archive is read with torch's own reader: another one may
find other bytes under a name, since torch's takes names that differ in case for the same; and it may find another list
of names, since a file may have two. Source: torch 2.13, torch/export/pt2_archive/_package.py, torch/_export/serde and
torch/fx/graph.py.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from torch.export.pt2_archive import PT2ArchiveReader

from quantuner.api.errors import ArtifactError
from quantuner.engine.expressions import harmless
from quantuner.engine.permitted import is_permitted
from quantuner.engine.structures import structure_problems
from quantuner.engine.texts import is_name, is_node, is_quotable

_PROGRAM, _INPUTS = "models/model.json", "data/sample_inputs/model.pt"
_TENSORS = {"data/weights/model_weights_config.json": "weight", "data/constants/model_constants_config.json": "tensor"}
_NEEDED = {_PROGRAM, _INPUTS, *_TENSORS, "archive_format", "archive_version"}
_RECORD = re.compile(r"data/weights/weight_\d+|data/constants/tensor_\d+|byteorder|\.data/(version|serialization_id)")
_NODES = ("name", "as_name", "user_input_name", "forward_arg_names")  # names in the code that torch makes of a graph
_VALUES = ("tensor_values", "sym_int_values", "sym_float_values", "sym_bool_values", "custom_obj_values")
_FREE = ("stack_trace",)  # never run: shown
_QUOTED = ("as_string", "as_strings")
_METADATA = {"stack_trace", "nn_module_stack", "torch_fn", "from_node", "custom"}
"""What is only kept; torch looks up by name what a `source_fn_stack` says."""
_FUNCTIONS = ("target", "as_operator")
_UNREADABLE = (
    *(RuntimeError, AssertionError, LookupError, TypeError, ValueError, AttributeError, RecursionError),
    *(OverflowError, MemoryError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError),
)
"""What readers raise of a damaged file."""


def inspect(program: Path | io.BytesIO, file: Path | None = None) -> None:
    """Raises `ArtifactError` where the program, which was read of `file`, could run code of its own, or is none."""
    if problem := refusal(program, file):
        raise ArtifactError(
            f"{file or program} is refused, since it might run code: {problem}; save the model anew with Quantuner"
        )


def refusal(program: Path | io.BytesIO, file: Path | None = None) -> str | None:
    """What the program has that no saved one may have. Raises `ArtifactError` where torch cannot read it."""
    try:
        return next(_problems(program), None)
    except _UNREADABLE as error:
        raise ArtifactError(
            f"{file or program} is no program that torch can read ({type(error).__name__}: {error}); copy the folder "
            "again, or save the model anew with Quantuner"
        ) from error


def _problems(program: Path | io.BytesIO) -> Iterator[str]:
    archive = PT2ArchiveReader(str(program) if isinstance(program, Path) else program)
    names = archive.get_file_names()
    for name in sorted(_NEEDED.difference(names)):
        yield f"it has no {name}"
    for name in names:
        if name not in _NEEDED and not _RECORD.fullmatch(name):
            yield f"it holds {name!r:.80}, which no saved model has"
    if _as_torch_lists(archive) != _as_python_lists(program):
        yield "torch and Python do not find the same records in it"
    if archive.read_bytes(_INPUTS):
        yield "it has example inputs, which would be unpickled"
    yield from program_problems(json.loads(archive.read_string(_PROGRAM)))
    for name, kind in _TENSORS.items():
        yield from _payload_problems(json.loads(archive.read_string(name)), kind)


def _as_torch_lists(archive: PT2ArchiveReader) -> list[tuple[str, int, int]]:
    """Name, size and place of every record."""
    reader: Any = archive.archive_file
    names = archive.get_file_names()
    return sorted((name, reader.get_record_size(name), reader.get_record_header_offset(name)) for name in names)


def _as_python_lists(program: Path | io.BytesIO) -> list[tuple[str, int, int]]:
    with zipfile.ZipFile(program) as archive:
        found = archive.infolist()
    return sorted((one.filename.partition("/")[2], one.file_size, one.header_offset) for one in found)


def _payload_problems(payload: Any, kind: str) -> Iterator[str]:
    for tensor, meta in payload["config"].items():
        if meta["use_pickle"] or not re.fullmatch(rf"{kind}_\d+", meta["path_name"]):
            yield f"the tensor {tensor!r} would be unpickled"


def program_problems(program: Any, key: str = "") -> Iterator[str]:
    """Why the program may not be saved or loaded: of its JSON, or of a part of it that stands under `key`."""
    if isinstance(program, dict):
        for name, value in program.items():
            if not (is_node(name) if key in _VALUES else is_name(name)):
                yield f"the name {name!r:.80}"
            if name == "metadata" and _is_text(value):
                yield from (f"the metadata {one!r:.80}" for one in value if one not in _METADATA)
            elif name in _QUOTED and not isinstance(value, dict) and _is_text(value):
                yield from (f"the text {one!r:.80}" for one in _texts(value) if not is_quotable(one))
            elif not (name in _FREE and _is_text(value)):
                yield from program_problems(value, name)
    elif isinstance(program, list):
        for value in program:
            yield from program_problems(value, key)
    elif isinstance(program, str):
        yield from _text_problems(program, key)


def _is_text(value: Any) -> bool:
    """A user may have called a tensor `metadata`: what is computed of it is no text."""
    return all(isinstance(part, str) for part in _texts(value))


def _texts(value: Any) -> Collection[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]


def _text_problems(text: str, key: str) -> Iterator[str]:
    if key in _FUNCTIONS:
        if not is_permitted(text):
            yield f"the function {text!r:.80}"
    elif key in ("expr_str", "guards_code"):
        if not harmless(text):
            yield f"the expression {text!r:.80}"
    elif key == "out_spec":
        yield from structure_problems(text, lambda _: True)  # no code is made of its keys
    elif key == "in_spec":
        yield from structure_problems(text, is_name)
    elif not (is_node(text) if key in _NODES else is_name(text)):
        yield f"the text {text!r:.80}"
