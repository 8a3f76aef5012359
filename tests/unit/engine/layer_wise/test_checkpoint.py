"""Checkpoints: one safetensors file, a folder with one, and several files with their index."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from quantuner.engine.layer_wise.checkpoint import Checkpoint

TENSORS = {"a": torch.arange(3.0), "b": torch.ones(2, dtype=torch.int8)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    for name, tensor in TENSORS.items():
        save_file({name: tensor}, tmp_path / f"{name}.safetensors")
    places = {name: f"{name}.safetensors" for name in TENSORS}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return tmp_path


@pytest.mark.parametrize("kind", ["folder", "sharded"])
def test_every_tensor_is_read_by_its_name(kind: str, request: pytest.FixtureRequest) -> None:
    checkpoint = Checkpoint(request.getfixturevalue(kind))
    assert all(torch.equal(checkpoint.read(name), tensor) for name, tensor in TENSORS.items())
    assert ("a" in checkpoint, "c" in checkpoint) == (True, False)


def test_a_file_may_have_any_name(sharded: Path) -> None:
    assert torch.equal(Checkpoint(str(sharded / "b.safetensors")).read("b"), TENSORS["b"])


def test_what_is_read_is_a_copy(folder: Path) -> None:
    Checkpoint(folder).read("a").zero_()
    assert torch.equal(Checkpoint(folder).read("a"), TENSORS["a"])


def test_nothing_there_and_something_else(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"holds no model\.safetensors nor model\.safetensors\.index\.json; name"
    ):
        Checkpoint(tmp_path)
    torch.save(TENSORS, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"is no safetensors file .*; save the weights with safetensors\.torch"):
        Checkpoint(tmp_path / "model.pt")
