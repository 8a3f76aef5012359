"""Streaming: a model without weights computes as the one with them, and holds none of them before and after."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from quantuner.engine.layer_wise.checkpoint import Checkpoint
from quantuner.engine.layer_wise.streaming import Weights
from tests.unit.engine.layer_wise.cases import DATA, Encoder, empty, saved


def streamed(tmp_path: Path) -> tuple[nn.Module, nn.Module, Weights]:
    model, bare = saved(Encoder, tmp_path), empty(Encoder)
    return model, bare, Weights(bare, Checkpoint(tmp_path))


def loaded(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters(remove_duplicate=False) if not parameter.is_meta]


def test_it_computes_as_the_model_with_weights(tmp_path: Path) -> None:
    model, bare, weights = streamed(tmp_path)
    with torch.no_grad(), weights.streamed(bare):
        assert torch.equal(bare(DATA), model(DATA))
    assert loaded(bare) == []


def test_only_the_module_that_runs_has_its_weights(tmp_path: Path) -> None:
    _, bare, weights = streamed(tmp_path)
    seen: list[list[str]] = []

    def look(*_: Any) -> None:
        seen.append(loaded(bare))

    bare.get_submodule("up").register_forward_hook(look)
    with torch.no_grad(), weights.streamed(bare):
        bare(DATA)
    assert seen in ([["up.weight", "up.bias"]], [[]])  # before or after they are dropped


def test_a_module_that_raises_gives_its_weights_back(tmp_path: Path) -> None:
    _, bare, weights = streamed(tmp_path)
    with torch.no_grad(), weights.streamed(bare), pytest.raises(IndexError):
        bare(DATA + 10_000)
    assert loaded(bare) == []


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    _, bare, weights = streamed(tmp_path)
    with torch.no_grad(), weights.streamed(bare):
        bare(DATA)
    assert bare.get_parameter("head.weight") is bare.get_parameter("embed.weight")
