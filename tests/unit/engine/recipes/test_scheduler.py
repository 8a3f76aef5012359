"""The scheduler: algorithms in their order, each on what the one before made; and which ones recipes ask for."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch.fx import GraphModule

from quantuner.engine.capture import capture
from quantuner.engine.recipes import post_quantization, pre_quantization
from quantuner.engine.recipes.scheduler import AlgorithmScheduler, Batches
from tests.unit.engine.models import Net, images, seeded


def graph() -> GraphModule:
    return capture(seeded(Net), (images(),)).graph


def batches() -> Iterator[tuple[Any, ...]]:
    yield (images(),)


@dataclass
class Noting:
    """An algorithm of the user's own: notes what it is given and answers with a model of its own."""

    seen: list[tuple[GraphModule, GraphModule, int]]
    answer: GraphModule = field(default_factory=graph)

    def __call__(self, origin_model: GraphModule, q_model: GraphModule, batches: Batches) -> GraphModule:
        self.seen.append((origin_model, q_model, len(list(batches()))))
        assert not torch.is_grad_enabled()
        return self.answer


def test_each_algorithm_works_on_what_the_one_before_made() -> None:
    origin, quantized = graph(), graph()
    seen: list[tuple[GraphModule, GraphModule, int]] = []
    one, other = Noting(seen), Noting(seen)
    scheduler = AlgorithmScheduler()
    scheduler.start(origin, quantized, batches)
    scheduler.append_algorithm(one)
    scheduler.append_algorithm(other)
    assert scheduler() is other.answer
    assert seen == [(origin, quantized, 1), (origin, one.answer, 1)]


def test_without_algorithms_the_model_is_the_one_given() -> None:
    scheduler, quantized = AlgorithmScheduler(), graph()
    scheduler.start(graph(), quantized, batches)
    assert scheduler() is quantized


@pytest.mark.parametrize("how", ["start", "reset_exec_algorithms"])
def test_algorithms_of_the_trial_before_are_forgotten(how: str) -> None:
    scheduler, quantized = AlgorithmScheduler(), graph()
    scheduler.start(graph(), quantized, batches)
    scheduler.append_algorithm(Noting([]))
    if how == "start":
        scheduler.start(graph(), quantized, batches)
    else:
        scheduler.reset_exec_algorithms()
    assert scheduler.algorithms == []
    assert scheduler() is quantized


def test_it_does_not_run_before_it_has_models() -> None:
    with pytest.raises(RuntimeError, match=r"start\(\) gives the scheduler its models"):
        AlgorithmScheduler()()


@pytest.mark.parametrize(
    ("recipes", "before", "after"),
    [
        pytest.param({}, [], [], id="none"),
        pytest.param({"smooth_quant": True}, ["smooth_quant 0.5"], [], id="smooth quant, at its default alpha"),
        pytest.param({"smooth_quant": True, "smooth_quant_args": {"alpha": 0.7}}, ["smooth_quant 0.7"], [], id="alpha"),
        pytest.param(
            {"smooth_quant": True, "smooth_quant_args": {"alpha": "auto"}}, ["smooth_quant auto"], [], id="auto"
        ),
        pytest.param({"smooth_quant": False, "smooth_quant_args": {"alpha": 0.7}}, [], [], id="smooth quant off"),
        pytest.param(
            {"smooth_quant": True, "smooth_quant_args": {"alpha": 0.7, "folding": True}},
            ["smooth_quant 0.7 folding True"],
            [],
            id="folding only",
        ),
        pytest.param(
            {"smooth_quant": True, "smooth_quant_args": {"alpha": "auto", "auto_alpha_args": {"alpha_min": 0.8}}},
            ["smooth_quant auto of (0.8, 0.9, 1.0)"],
            [],
            id="alphas of auto",
        ),
        pytest.param({"fast_bias_correction": True}, [], ["FastBiasCorrection"], id="bias"),
        pytest.param({"weight_correction": True}, [], ["WeightCorrection"], id="weight"),
        pytest.param(
            {"weight_correction": True, "fast_bias_correction": True},
            [],
            ["FastBiasCorrection", "WeightCorrection"],
            id="bias before weight",
        ),
        pytest.param({"fast_bias_correction": False, "weight_correction": False}, [], [], id="both off"),
    ],
)
def test_the_algorithms_that_recipes_ask_for(recipes: Any, before: list[str], after: list[str]) -> None:
    assert [getattr(algorithm, "key", "") for algorithm in pre_quantization(recipes)] == before
    assert [type(algorithm).__name__ for algorithm in post_quantization(recipes)] == after
