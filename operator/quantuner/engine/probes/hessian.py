"""Traces of the loss's Hessian by Hutchinson's estimator.

Source: Dong et al. 2019, HAWQ-V2 (arXiv:1911.03852), section 3.2: Tr(H) = E[vᵀHv] for Rademacher vectors v.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.fx import GraphModule
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.capture import quantizable_nodes
from quantuner.engine.entrypoint import users_code
from quantuner.engine.graphs import attribute, path_of
from quantuner.engine.operators import weight_of
from quantuner.engine.quiet import quiet

Loss = Callable[[Any, Any], torch.Tensor]
"""Takes the model's output and the batch's target; returns a scalar."""
LOSSES: dict[str, Loss] = {
    "cross_entropy": functional.cross_entropy,
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "binary_cross_entropy_with_logits": functional.binary_cross_entropy_with_logits,
}
VECTORS = 100  # at most
LEAST_VECTORS = 10  # of which a deviation can be told
TOLERANCE = 0.05  # standard error of every trace, relative to the largest one, at which the estimate has settled


def hessian_traces(graph: GraphModule, batch: Any, loss: Loss | str | None, seed: int) -> dict[str, float]:
    """Op name to the trace of the Hessian of the loss with respect to its weight, per element of the weight.

    `batch` is `(input, target)`; `loss` a callable or its name, None for cross entropy where targets are integers and
    squared error where they are not. A weight that the loss does not depend on, as of another head, has 0. Raises
    `SearchError` where there is no target or the loss does not fit.
    """
    inputs, target = _parted(batch)
    with quiet():
        model = copy.deepcopy(graph)
    weights = _weights(model)
    generator = torch.Generator().manual_seed(seed)
    # Attention's fused kernels have no second derivative.
    with users_code(Failure.TASK_INVALID, "the loss"), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        value = _loss(loss, target)(model(*inputs), target)
        gradients = torch.autograd.grad(value, list(weights.values()), create_graph=True, allow_unused=True)
        used = {n: (w, g) for (n, w), g in zip(weights.items(), gradients, strict=True) if g is not None}
        traces = _settled(_estimates([g for _, g in used.values()], [w for w, _ in used.values()], generator))
    known = {name: float(trace) / w.numel() for (name, (w, _)), trace in zip(used.items(), traces, strict=True)}
    return {name: known.get(name, 0.0) for name in weights}


def _parted(batch: Any) -> tuple[tuple[Any, ...], Any]:
    if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
        raise SearchError(
            Failure.TASK_INVALID,
            "hawq_v2 derives the loss, which needs targets; let calib_dataloader yield (input, target)",
        )
    inputs, target = batch
    return (tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)), target


def _weights(model: GraphModule) -> dict[str, torch.Tensor]:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    found: dict[str, torch.Tensor] = {}
    for name, _, node in quantizable_nodes(model.graph):
        weight = weight_of(node)
        if weight is not None:  # a product of activations has none
            found[name] = attribute(model, path_of(weight))
            found[name].requires_grad_(True)
    return found


def _loss(loss: Loss | str | None, target: Any) -> Loss:
    if callable(loss):
        return loss
    if loss is None:
        integral = isinstance(target, torch.Tensor) and not target.is_floating_point()
        return LOSSES["cross_entropy" if integral else "mse"]
    if ":" in loss:
        module, _, name = loss.partition(":")
        found: Loss = getattr(importlib.import_module(module), name)
        return found
    if loss not in LOSSES:
        raise ValueError(f"hawq_v2_loss must be one of {', '.join(LOSSES)} or module:callable, not {loss!r}")
    return LOSSES[loss]


def _estimates(
    gradients: list[torch.Tensor], weights: list[torch.Tensor], generator: torch.Generator
) -> Iterator[torch.Tensor]:
    """vᵀHv of each weight, one `(weights,)` tensor per random vector; those are the same on every device."""
    for _ in range(VECTORS):
        vectors = [torch.randint(0, 2, w.shape, generator=generator, device="cpu").to(w) * 2 - 1 for w in weights]
        products = torch.autograd.grad(gradients, weights, vectors, retain_graph=True, materialize_grads=True)
        yield torch.stack([(v * p).sum() for v, p in zip(vectors, products, strict=True)])


def _settled(estimates: Iterator[torch.Tensor]) -> torch.Tensor:
    """Their mean, once it is known well enough."""
    seen: list[torch.Tensor] = []
    for estimate in estimates:
        seen.append(estimate.double())
        if len(seen) >= LEAST_VECTORS:
            values = torch.stack(seen)
            mean, error = values.mean(0), values.std(0) / len(seen) ** 0.5
            if bool((error <= TOLERANCE * mean.abs().max()).all()):
                break
    return torch.stack(seen).mean(0)
