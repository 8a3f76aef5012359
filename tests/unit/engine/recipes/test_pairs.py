"""Dedicated pairs: a quantize and a dequantize for every quantized op, in the saved model too, and the same bits."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from quantuner.engine.capture import op_nodes
from quantuner.engine.quantized import load
from quantuner.engine.recipes.pairs import dedicate
from quantuner.space.config import FP32
from tests.unit.engine.models import Shared
from tests.unit.engine.recipes.cases import by_range, calibrated, normal, seeded_module, spelled

DATA = normal(8, 6)


class Attention(nn.Module):
    """Three linears read one value."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.out(self.q(x) + self.k(x) * self.v(x))
        return y


def counts(model: GraphModule) -> tuple[int, int]:
    """(quantize, dequantize) nodes of activations."""
    names = Counter(getattr(node.target, "_opname", "") for node in model.graph.nodes)
    return names["quantize_per_tensor"], names["dequantize_per_tensor"]


def sources(model: GraphModule) -> list[Any]:
    return [node.args[0].args[0] for _, _, node in op_nodes(model.graph)]  # type: ignore[union-attr]


@pytest.mark.parametrize(("approach", "shared"), [("static", (2, 4)), ("dynamic", (2, 2))])
def test_every_op_has_a_pair_of_its_own(approach: str, shared: Any, tmp_path: Path) -> None:
    engine = calibrated(seeded_module(Attention), DATA, approach)
    plain, recipe = by_range(engine), by_range(engine, dedicated_qdq_pair=True)
    before, after = engine.quantized(plain), engine.quantized(recipe)
    engine.save(recipe, tmp_path / "model")
    saved = load(tmp_path / "model").model
    assert counts(before) == shared
    assert counts(after) == counts(saved) == (4, 4)
    assert len(set(sources(after))) == len(set(sources(saved))) == 4
    with torch.no_grad():
        expected = before(DATA)
        trial = engine.switchable(recipe).model(recipe)(DATA)
        assert all(torch.equal(found, expected) for found in (after(DATA), saved(DATA), trial))


def test_its_trials_are_not_converted() -> None:
    """It changes no bit, so that they need not be."""
    engine = calibrated(seeded_module(Attention), DATA)
    assert not isinstance(engine._for_evaluation(by_range(engine, dedicated_qdq_pair=True)), GraphModule)


def test_an_op_in_fp32_has_none() -> None:
    engine = calibrated(seeded_module(Attention), DATA)
    model = engine.quantized(by_range(engine, dedicated_qdq_pair=True).having({"k": FP32}))
    assert counts(model) == (3, 3)


def test_pairs_that_are_dedicated_stay() -> None:
    engine = calibrated(seeded_module(Shared), normal(8, 4))
    model = engine.quantized(by_range(engine, dedicated_qdq_pair=True))
    before = spelled(model)
    dedicate(model)
    assert spelled(model) == before
