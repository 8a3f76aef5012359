"""Weights in safetensors files, read one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

INDEX_FILE = "model.safetensors.index.json"
ONE_FILE = "model.safetensors"


class Checkpoint:
    """Where a model's tensors lie: a safetensors file, or a folder with one or with several and their index."""

    def __init__(self, path: str | Path) -> None:
        """Raises `FileNotFoundError` where there is none, `ValueError` for a file of another kind."""
        self.path = Path(path)
        self._files = dict(_tensors(self.path))
        """Name of a tensor to the file that holds it."""

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def read(self, name: str) -> torch.Tensor:
        """The tensor, as a copy: the file is mapped only while it is read. Raises `KeyError` for a name it has not."""
        with safe_open(self._files[name], framework="pt", device="cpu") as file:
            tensor: torch.Tensor = file.get_tensor(name).clone()
        return tensor


def _tensors(path: Path) -> Iterator[tuple[str, Path]]:
    index = path / INDEX_FILE
    if index.is_file():
        places: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        yield from ((name, path / file) for name, file in places.items())
        return
    file = path / ONE_FILE if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{path} holds no {ONE_FILE} nor {INDEX_FILE}; name a safetensors file or its folder")
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            yield from ((name, file) for name in opened.keys())  # noqa: SIM118  # it is no mapping
    except SafetensorError as error:
        raise ValueError(f"{file} is no safetensors file ({error}); save the weights with safetensors.torch") from error
