"""What a saved program may hold, so that loading and running it runs no code of whoever saved it.

torch.export.load unpickles tensors that ask for it, custom objects and example inputs, evaluates expressions of sizes
as Python, and calls any function of torch that a node names, those of the operating system included. A program that
Quantuner saved needs none of it. The archive is read with torch's own reader: another one may find other bytes under a
name, since torch's takes names that differ in case for the same. Source: torch 2.13,
torch/export/pt2_archive/_package.py and torch/_export/serde.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.export.pt2_archive import PT2ArchiveReader

from quantuner.api.errors import ArtifactError

_RECORD = re.compile(
    r"models/model\.json|data/(weights|constants)/(model_\1_config\.json|weight_\d+|tensor_\d+)"
    r"|data/sample_inputs/model\.pt|archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
)
_NAME = re.compile(r"[\w.<>:/+ -]*")
_WORD = re.compile(r"[A-Za-z]\w*")
_TARGET = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed|torchao|higher_order)\.[a-z]\w*(\.[A-Za-z]\w*)?"
    r"|torch\.ops\.(aten|prims)\._[a-z]\w*\.[A-Za-z]\w*"
    r"|torch\.ops\.aten\.__i?(and|or|xor|lshift|rshift)__\.(Scalar|Tensor)"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.[a-z]\w*|torch\.sym_\w+|torch\._sym_\w+"
)
_FORBIDDEN = ("torch.ops.aten.from_file", "torch.ops.aten.save")  # open a file of any name
_FREE = ("metadata", "as_string", "as_strings", "stack_trace")  # never run: shown, or a node's argument
_FUNCTIONS = ("target", "as_operator")
_SIZES = ("size", "stride", "storage_offset", "dim", "ndimension")
_CALLED = ("int", "float", "bool", "abs", "min", "max", "round", "len")
_SYNTAX = (
    *(
        ast.Expression,
        ast.BoolOp,
        ast.boolop,
        ast.BinOp,
        ast.operator,
        ast.UnaryOp,
        ast.unaryop,
        ast.Compare,
        ast.cmpop,
    ),
    *(ast.Call, ast.keyword, ast.Constant, ast.Name, ast.Load, ast.Subscript, ast.Attribute, ast.IfExp),
)


def inspect(file: Path) -> None:
    """Raises `ArtifactError` where the program `file` could run code of its own."""
    try:
        problem = next(_problems(PT2ArchiveReader(str(file))), None)
    except (RuntimeError, AssertionError, KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"it cannot be read ({type(error).__name__}: {error})"
    if problem:
        raise ArtifactError(
            f"{file} is refused, since it might run code: {problem}; save the model anew with Quantuner"
        )


def _problems(archive: PT2ArchiveReader) -> Iterator[str]:
    for name in archive.get_file_names():
        if not _RECORD.fullmatch(name):
            yield f"it holds {name!r:.80}, which no saved model has"
        elif name.startswith("data/sample_inputs/"):
            if archive.read_bytes(name):
                yield "it has example inputs, which would be unpickled"
        elif name.startswith("models/"):
            yield from _program_problems(json.loads(archive.read_bytes(name)))
        elif name.endswith(".json"):
            yield from _payload_problems(json.loads(archive.read_bytes(name)))


def _payload_problems(payload: Any) -> Iterator[str]:
    for tensor, meta in payload["config"].items():
        if meta["use_pickle"] or "obj" in meta["path_name"]:
            yield f"the tensor {tensor!r} would be unpickled"


def _program_problems(program: Any, key: str = "") -> Iterator[str]:
    """Of the JSON of a program, or of a part of it that stands under `key`."""
    if isinstance(program, dict):
        for name, value in program.items():
            if not _NAME.fullmatch(name):
                yield f"the name {name!r:.80}"
            if not (name in _FREE and _is_text(value)):
                yield from _program_problems(value, name)
    elif isinstance(program, list):
        for value in program:
            yield from _program_problems(value, key)
    elif isinstance(program, str):
        yield from _text_problems(program, key)


def _is_text(value: Any) -> bool:
    """A user may have called a tensor `metadata`: what is computed of it is no text."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return all(isinstance(part, str) for part in parts)


def _text_problems(text: str, key: str) -> Iterator[str]:
    if key in _FUNCTIONS:
        if not is_permitted(text):
            yield f"the function {text!r:.80}"
    elif key in ("expr_str", "guards_code"):
        if not harmless(text):
            yield f"the expression {text!r:.80}"
    elif key == "default_factory_module":
        if text != "builtins":
            yield f"the module {text!r:.80}"
    elif key == "out_spec":
        yield from _returned_problems(json.loads(text))
    elif key == "in_spec" or text[:1] in ("[", "{", '"'):
        yield from _program_problems(json.loads(text), "name")
    elif not is_name(text):
        yield f"the text {text!r:.80}"


def _returned_problems(structure: Any) -> Iterator[str]:
    """Of the structure of what a model returns: no code is made of its keys, which may be called anything."""
    if isinstance(structure, dict):
        if structure.get("default_factory_module", "builtins") != "builtins":
            yield f"the module {structure['default_factory_module']!r:.80}"
        for value in structure.values():
            yield from _returned_problems(value)
    elif isinstance(structure, list):
        for value in structure:
            yield from _returned_problems(value)
    elif isinstance(structure, str) and structure[:1] in ("[", "{"):
        with contextlib.suppress(ValueError):  # a key, which is read no further
            yield from _returned_problems(json.loads(structure))


def is_permitted(target: str) -> bool:
    """Whether a saved program may call the function, as `torch.ops.aten.add.Tensor`."""
    return bool(_TARGET.fullmatch(target)) and not target.startswith(_FORBIDDEN)


def is_name(text: str) -> bool:
    """Whether a saved program may have the name."""
    return bool(_NAME.fullmatch(text))


def harmless(expression: str) -> bool:
    """Whether evaluating it can do no more than compute with sizes."""
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, RecursionError):
        return False
    return all(isinstance(node, _SYNTAX) and _computes(node) for node in ast.walk(tree))


def _computes(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return bool(_WORD.fullmatch(node.id))
    if isinstance(node, ast.Attribute):
        return node.attr in _SIZES or (isinstance(node.value, ast.Name) and node.value.id == "math")
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, (str, bytes)) or bool(_NAME.fullmatch(str(node.value)))
    if isinstance(node, ast.Call):
        called = node.func
        return isinstance(called, ast.Attribute) or (
            isinstance(called, ast.Name) and (called.id in _CALLED or called.id[0].isupper())  # sympy's classes
        )
    return True
