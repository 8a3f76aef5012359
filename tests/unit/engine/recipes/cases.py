"""What the tests of recipes share: configurations that take the range seen, and what an algorithm made of a model."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from quantuner.engine.capture import Captured, capture
from quantuner.engine.engine import Engine
from quantuner.engine.recipes.scheduler import Algorithm, AlgorithmScheduler
from quantuner.space.config import OpConfig, TuneConfig
from quantuner.space.samplers import initial
from tests.unit.engine.models import engine_of

Inputs = tuple[Any, ...]
MINMAX = {("activation", "algorithm"): "minmax"}


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded_module(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


def calibrated(model: nn.Module, data: torch.Tensor, approach: str = "static") -> Engine:
    engine = engine_of(model, loader=[data], eval_func=lambda _: 0.0, approach=approach)
    engine.calibrate()
    return engine


def by_range(engine: Engine, **recipes: Any) -> TuneConfig:
    """Every op quantized by the range seen, since a histogram's cut would hide what a recipe does."""
    ops = {name: OpConfig(c.mode, tuple((i, MINMAX.get(i, o)) for i, o in c.options)) for name, c in _ops(engine)}
    return TuneConfig(ops, recipes=recipes)


def _ops(engine: Engine) -> Sequence[tuple[str, OpConfig]]:
    return list(initial(engine.space).ops.items())


def captured(model: nn.Module, data: torch.Tensor) -> Captured:
    return capture(model, (data,))


def routed(some: bool, count: int = 8) -> torch.Tensor:
    """Rows for `Routed`: all for its expert, or none."""
    data = normal(count, 4)
    data[:, 0] = data[:, 0].abs() if some else -data[:, 0].abs()
    return data


def once(data: torch.Tensor) -> Callable[[], Iterator[Inputs]]:
    return lambda: iter([(data,)])


def applied(
    algorithm: Algorithm, origin: GraphModule, model: GraphModule, batches: Callable[[], Iterator[Inputs]]
) -> GraphModule:
    """The algorithm's result, run as an engine runs it."""
    scheduler = AlgorithmScheduler()
    scheduler.start(origin, model, batches)
    scheduler.append_algorithm(algorithm)
    return scheduler()


def spelled(model: GraphModule) -> str:
    """The graph and every bit of the tensors."""
    tensors = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    return f"{model.graph}\n{tensors}"


def squared_error(one: Any, other: Any, data: torch.Tensor) -> float:
    with torch.no_grad():
        return float((one(data) - other(data)).square().mean())
