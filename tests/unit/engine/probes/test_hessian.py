"""Hutchinson's estimate against Hessians that are known exactly."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.capture import capture
from quantuner.engine.probes.hessian import TOLERANCE, hessian_traces


def exact_trace(model: nn.Module, name: str, loss: Any) -> float:
    """Trace of the full Hessian with respect to one weight, per element."""
    weight = model.get_parameter(name)

    def as_function(value: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = loss(torch.func.functional_call(model, {name: value}, (X,)))
        return found

    hessian = torch.autograd.functional.hessian(as_function, weight.detach())
    size = weight.numel()
    return float(hessian.reshape(size, size).trace()) / size


X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
TARGETS = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).eval()


@pytest.mark.parametrize(
    ("loss", "target", "function"),
    [
        pytest.param(None, LABELS, functional.cross_entropy, id="integers: cross entropy"),
        pytest.param(None, TARGETS, functional.mse_loss, id="floats: squared error"),
        pytest.param("mse", TARGETS, functional.mse_loss, id="by name"),
        pytest.param("torch.nn.functional:mse_loss", TARGETS, functional.mse_loss, id="by import"),
        pytest.param(functional.l1_loss, TARGETS, functional.l1_loss, id="a callable"),
    ],
)
def test_the_estimate_is_near_the_exact_trace(loss: Any, target: torch.Tensor, function: Any) -> None:
    model = two_layers()
    traces = hessian_traces(capture(model, (X,)).graph, (X, target), loss, seed=1)
    exact = {op: exact_trace(model, f"{op}.weight", lambda output: function(output, target)) for op in traces}
    assert set(traces) == {"0", "2"}
    # The standard error is held below TOLERANCE of the largest trace, per weight; a seed may be 4 of them off.
    sizes = {"0": 20, "2": 15}
    largest = max(abs(trace) * sizes[op] for op, trace in exact.items())
    for op, trace in traces.items():
        assert trace == pytest.approx(exact[op], abs=4 * TOLERANCE * largest / sizes[op])


def test_the_last_layer_under_squared_error_is_exact() -> None:
    """There the Hessian is block diagonal with the inputs' second moments; the estimate's mean is its trace."""
    model = two_layers()
    traces = hessian_traces(capture(model, (X,)).graph, (X, TARGETS), None, seed=2)
    with torch.no_grad():
        hidden = torch.tanh(model.get_submodule("0")(X))
    # loss = mean over 8·3 elements of (Wh - t)²: d²/dW_ij² = 2 · sum_n h_nj² / 24
    exact = float(2 * hidden.square().sum(0).mean() / 24)
    assert traces["2"] == pytest.approx(exact, rel=0.25)


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.one, self.other = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.body(x).tanh()
        return self.one(y), self.other(y)


def test_a_head_that_the_loss_leaves_out_has_no_curvature() -> None:
    torch.manual_seed(0)
    graph = capture(Heads().eval(), (X,)).graph
    traces = hessian_traces(graph, (X, LABELS), lambda out, target: functional.cross_entropy(out[0], target), 0)
    assert traces["body"] > 0
    assert traces["one"] > 0
    assert traces["other"] == 0


def test_the_same_seed_gives_the_same_traces() -> None:
    graph = capture(two_layers(), (X,)).graph
    one, same, other = (hessian_traces(graph, (X, LABELS), None, seed=seed) for seed in (3, 3, 4))
    assert one == same
    assert one != other


def test_the_graph_is_left_as_it_was() -> None:
    captured = capture(two_layers(), (X,))
    before = [p.requires_grad for p in captured.graph.parameters()]
    hessian_traces(captured.graph, (X, LABELS), None, seed=0)
    assert [p.requires_grad for p in captured.graph.parameters()] == before
    assert all(p.grad is None for p in captured.graph.parameters())


def test_attention_has_second_derivatives() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.inner(x)[None, None]
            return functional.scaled_dot_product_attention(y, y, y)[0, 0]

    torch.manual_seed(0)
    traces = hessian_traces(capture(Attending().eval(), (X,)).graph, (X, torch.zeros(8, 4)), None, seed=0)
    assert traces["inner"] > 0


@pytest.mark.parametrize(
    ("batch", "loss", "says"),
    [
        (X, None, r"let calib_dataloader yield \(input, target\)"),
        ((X, LABELS), "hinge", "hawq_v2_loss must be one of cross_entropy, mse"),
        ((X, LABELS), lambda output, _: output, "the loss raised"),
        ((X, torch.tensor([9] * 8)), None, "the loss raised"),
    ],
    ids=["no target", "an unknown name", "no scalar", "labels out of range"],
)
def test_a_loss_that_does_not_fit_is_refused(batch: Any, loss: Any, says: str) -> None:
    with pytest.raises(SearchError, match=says) as caught:
        hessian_traces(capture(two_layers(), (X,)).graph, batch, loss, seed=0)
    assert caught.value.reason == Failure.TASK_INVALID
