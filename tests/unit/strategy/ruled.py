"""An engine whose trials a rule answers: what a strategy asks for, in which order and until when.

Model, calibration, probes and modelled cost are real. What a trial of a quantized model gives is the engine's business,
and that of `test_contract.py`.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantuner.api.journal import History
from quantuner.api.spec import AccuracyCriterion, Tuning
from quantuner.api.task import Task
from quantuner.api.trial import Limit, TrialResult
from quantuner.engine.engine import Engine
from quantuner.space.config import TuneConfig
from quantuner.strategy import TuneStrategy, strategy_class
from tests.unit.engine.models import ALL_FAST, seeded
from tests.unit.records import tuning

OPS = ("stem", "blocks.0.a", "blocks.0.b", "blocks.1.a", "head")
"""Of the model, in its order; the stem is a Conv1d, the others are Linear."""
RANKED = ("blocks.1.a", "blocks.0.a", "head", "stem", "blocks.0.b")
"""The most sensitive first, by each of the probes."""
OUTLIERS = {"stem": 24.0, "blocks.0.a": 192.0, "blocks.0.b": 4.0, "blocks.1.a": 1024.0, "head": 96.0}
"""Largest input of each op: the wider its range, the fewer levels are left for what its weights use."""
WIDTHS = {"stem": 2, "blocks.0.a": 8, "blocks.0.b": 16, "blocks.1.a": 4, "head": 12}
"""Outputs of each op, which are its share of the compute."""
STATIC = ("static/asym/kl", "static/asym/minmax", "static/sym/kl", "static/sym/minmax")
"""Of every op; the first is the default."""
ONE_OPTION = {"opTypes": [{"pattern": ".*", "activation": {"scheme": ["asym"], "algorithm": ["kl"]}}]}
"""Leaves every op its default and fp32."""
UNTRIED = {"recipes": {"firstConvOrMatmulQuantization": True, "lastConvOrMatmulQuantization": True}}
"""Settles the recipes, so that none is tried."""
BASELINE = 1.0

Rule = Callable[[TuneConfig], float | None]
"""A configuration's accuracy; None where its trial fails."""


class Rows(nn.Module):
    """Ops side by side, each with its own row of the input and its own part of the output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, WIDTHS["stem"], 4)
        first = nn.ModuleDict({name: nn.Linear(4, WIDTHS[f"blocks.0.{name}"]) for name in "ab"})
        self.blocks = nn.ModuleList([first, nn.ModuleDict({"a": nn.Linear(4, WIDTHS["blocks.1.a"])})])
        self.head = nn.Linear(4, WIDTHS["head"])
        with torch.no_grad():
            for name in OPS:  # no output depends on the outlier, so that clipping it does no harm
                self.get_parameter(f"{name}.weight")[..., 3] = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, 5, 4)` to `(N, 42)`, float32."""
        stem = self.stem(x[:, :1]).flatten(1)
        others = [self.get_submodule(name)(x[:, row]) for row, name in enumerate(OPS[1:], 1)]
        return torch.cat([stem, *others], 1)


def rows(count: int = 64, seed: int = 1) -> torch.Tensor:
    """`(count, 5, 4)`: a row per op, its outlier last."""
    x = torch.randn(count, len(OPS), 4, generator=torch.Generator().manual_seed(seed))
    x[:, :, 3] = torch.tensor([OUTLIERS[name] for name in OPS]) * torch.linspace(-1, 1, count)[:, None]
    return x


def late_rows() -> list[torch.Tensor]:
    """Two batches; the rows of the two most sensitive ops are zero in the first."""
    early, late = rows(32, seed=1), rows(32, seed=2)
    early[:, [OPS.index(name) for name in RANKED[:2]]] = 0.0
    return [early, late]


DATA: Mapping[str, Callable[[], list[torch.Tensor]]] = {
    "rows": lambda: [rows()],
    "zeros": lambda: [torch.zeros(64, len(OPS), 4)],  # every error is 0, so that all ops tie
    "late": late_rows,
}
"""To calibrate with."""


def of_the_head(output: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """A loss that depends on nothing but the op named head."""
    return output[:, -WIDTHS["head"] :].square().mean()


class Ruled(Engine):
    """Answers trials by a rule on their configuration, and keeps what was asked."""

    rule: Rule
    asked: list[TuneConfig]

    def baseline(self) -> TrialResult:
        return self._measured(BASELINE)

    def trial(self, config: TuneConfig, limit: Limit | None = None) -> TrialResult:
        self.asked.append(config)
        accuracy = self.rule(config)
        return (
            TrialResult(accuracy=None, seconds=1.0, error="as ruled") if accuracy is None else self._measured(accuracy)
        )

    def save(self, config: TuneConfig, folder: Path) -> float:
        accuracy = self.rule(config)
        assert accuracy is not None
        return accuracy

    def _measured(self, accuracy: float) -> TrialResult:
        return TrialResult(accuracy=accuracy, objectives=dict.fromkeys(self.objectives, 1.0), seconds=1.0)


def searching(
    rule: Rule,
    strategy: str,
    *,
    quantization: Mapping[str, Any] | None = None,
    accuracy: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    data: str = "rows",
    resume: History | None = None,
) -> TuneStrategy:
    """A strategy ready to traverse; by default only the baseline's accuracy meets."""
    conf = ordered(strategy, quantization, accuracy, limits, kwargs)
    engine = copy.copy(_engine(json.dumps(quantization), data))  # shares what was captured and calibrated
    engine.rule, engine.asked = rule, []
    made: TuneStrategy = strategy_class(strategy)(engine, conf, resume=resume)
    return made


def ordered(
    strategy: str,
    quantization: Mapping[str, Any] | None = None,
    accuracy: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Tuning:
    """What is asked of the search; `accuracy` and `kwargs` as in Python, where more is possible than in a resource."""
    spec = {
        "quantization": dict(quantization or {}),
        "tuningCriterion": {"strategy": strategy, **(limits or {})},
    }
    conf = tuning(spec)
    return replace(
        conf,
        accuracy_criterion=AccuracyCriterion(**{"tolerable_loss": 0.0, **(accuracy or {})}),
        tuning_criterion=replace(conf.tuning_criterion, strategy_kwargs=dict(kwargs or {})),
    )


@functools.cache
def _engine(quantization: str, data: str) -> Ruled:
    conf = ordered("basic", json.loads(quantization))
    batches = [(x, torch.zeros(len(x), sum(WIDTHS.values()))) for x in DATA[data]()]
    task = Task(model=seeded(Rows), calib_dataloader=batches, eval_func=lambda _: BASELINE)
    engine = Ruled(task, conf.quantization, ["performance"], ALL_FAST)
    engine.calibrate()
    return engine


def asked(strategy: TuneStrategy) -> list[TuneConfig]:
    """The configurations that were tried, in order."""
    assert isinstance(strategy.engine, Ruled)
    return strategy.engine.asked


def searched(rule: Rule, strategy: str, **more: Any) -> list[TuneConfig]:
    """The configurations that a whole search tries."""
    made = searching(rule, strategy, **more)
    made.traverse()
    return asked(made)


def fallen(config: TuneConfig) -> frozenset[str]:
    """The ops that it does not quantize."""
    return frozenset(name for name, op in config.items() if op.mode.is_precision)


def fallbacks(configs: list[TuneConfig]) -> list[frozenset[str]]:
    return [fallen(config) for config in configs]


def sets(*texts: str) -> list[frozenset[str]]:
    """Sets of ops, each as its names with blanks between them."""
    return [frozenset(text.split()) for text in texts]


def heads(ranking: tuple[str, ...] = RANKED) -> list[frozenset[str]]:
    """The first one, two, … of a ranking."""
    return [frozenset(ranking[:count]) for count in range(1, len(ranking) + 1)]


# --- rules


def never(config: TuneConfig) -> float:
    """No configuration meets the criterion, and all are equally accurate."""
    return BASELINE / 2


def needing(*names: str) -> Rule:
    """As good as the baseline with these ops in fp32, and worse by each that is not."""
    return lambda config: BASELINE - 0.1 * len(set(names) - fallen(config))


def losing(**losses: float) -> Callable[[TuneConfig], float]:
    """Every quantized op costs its loss; names with `_` for `.`, others cost nothing. No configuration meets."""
    each = {name.replace("_", "."): loss for name, loss in losses.items()}
    return lambda config: BASELINE - 0.1 - sum(loss for name, loss in each.items() if name not in fallen(config))
