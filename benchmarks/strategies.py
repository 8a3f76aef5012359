"""What a strategy costs and finds: trials to the first configuration that keeps the accuracy, and what the best costs.

Runs every strategy on three models that lose accuracy in int8 (`strategies_models.py`), each with the same limit of
trials. A table per model; the last line is one JSON object. Trials count, not seconds: they are the same on any
machine of one CPU kind.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.strategies_models import PROBLEMS, SEED, Problem
from quantuner.config import AccuracyCriterion, PostTrainingQuantConfig, TuningCriterion
from quantuner.engine.engine import use_threads
from quantuner.options import set_random_seed
from quantuner.strategy import TuneStrategy, strategies, strategy_class

MAX_TRIALS = 50
THREADS = 2


@dataclass(frozen=True)
class Measured:
    """One strategy on one model. None where no configuration meets the criterion."""

    first: int | None
    """Trials until the first configuration that meets it, that one included."""
    trials: int
    """All of them: some strategies go on after a success, to quantize more."""
    cost: float | None
    """Modelled latency of the winner's ops relative to fp32."""
    quantized_ops: float | None
    """Share of the ops that the winner quantizes."""
    seconds: float
    """Of the search, probes included; the model was captured and calibrated before."""


def main() -> None:
    arguments = _arguments()
    use_threads(THREADS)
    set_random_seed(SEED)
    problems = {name: PROBLEMS[name]() for name in arguments.models}
    models = {name: _compared(name, problem, arguments.strategies) for name, problem in problems.items()}
    totals = {f"trials_{name}": _total(name, models) for name in arguments.strategies}
    plain = {model: {name: asdict(row) for name, row in rows.items()} for model, rows in models.items()}
    print(json.dumps({"bench": "strategies", **totals, "models": plain}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.strategies", description=__doc__)
    for kind, known in (("model", list(PROBLEMS)), ("strategy", strategies())):
        option = "--models" if kind == "model" else "--strategies"
        parser.add_argument(option, type=_names(kind, known), default=known, help=f"of {', '.join(known)}")
    return parser.parse_args()


def _names(kind: str, known: Collection[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"there is no {kind} {name!r}; there are {', '.join(known)}")
        return names

    return parse


def _compared(model: str, problem: Problem, names: Collection[str]) -> dict[str, Measured]:
    rows = {}
    for name in names:
        strategy = _strategy(name, problem)
        rows[name] = _measured(strategy)
        if len(rows) == 1:
            _print_heading(model, problem, strategy)
        _print_row(name, rows[name])
        _forget_models()
    print()
    return rows


def _strategy(name: str, problem: Problem) -> TuneStrategy:
    """With an engine of its own, so that none profits from what another one's probes have computed."""
    conf = PostTrainingQuantConfig(
        calibration_sampling_size=problem.samples,
        accuracy_criterion=AccuracyCriterion(tolerable_loss=problem.tolerable_loss),
        tuning_criterion=TuningCriterion(strategy=name, max_trials=MAX_TRIALS),
    )
    task = problem.task
    strategy: TuneStrategy = strategy_class(name)(task.model, conf, task.calib_dataloader, eval_func=task.eval_func)
    strategy.engine.ensure_calibrated()
    return strategy


def _measured(strategy: TuneStrategy) -> Measured:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        strategy.folder = Path(folder) / "model"
        finished = strategy.traverse()
        assert finished is not None
    trials = strategy.tuning_history[1:]  # after the baseline
    winner, best = strategy.winner_config, finished.best
    modes = [op.mode for op in winner.values()] if winner is not None else []
    return Measured(
        first=next((trial.index for trial in trials if trial.meets), None),
        trials=len(trials),
        cost=strategy.tuning_history[best].cost if winner is not None and best is not None else None,
        quantized_ops=round(sum(not mode.is_precision for mode in modes) / len(modes), 3) if modes else None,
        seconds=round(time.monotonic() - started, 2),
    )


def _forget_models() -> None:
    """torchao keeps every model that it prepared, in a functools.cache: those of a strategy would outlive it."""
    import torchao.utils  # here, since quantuner has imported it without its complaints of missing GPU libraries

    torchao.utils._assert_and_get_unique_device.cache_clear()


def _print_heading(model: str, problem: Problem, strategy: TuneStrategy) -> None:
    history = strategy.tuning_history
    target = strategy.tuning.accuracy_criterion.target(history[0].accuracy or 0.0)
    print(
        f"{model}: {len(strategy.tuning_space.capabilities)} ops, fp32 {history[0].accuracy:.4f}, target {target:.4f} "
        f"(loss of {problem.tolerable_loss:.1%})"
    )
    print(f"  {'strategy':<14}{'first':>7}{'trials':>8}{'cost':>8}{'quantized':>11}{'seconds':>9}")


def _print_row(name: str, row: Measured) -> None:
    first, cost = row.first or "-", "-" if row.cost is None else f"{row.cost:.3f}"
    share = "-" if row.quantized_ops is None else f"{row.quantized_ops:.0%}"
    print(f"  {name:<14}{first:>7}{row.trials:>8}{cost:>8}{share:>11}{row.seconds:>9.1f}", flush=True)


def _total(name: str, models: Mapping[str, Mapping[str, Measured]]) -> int:
    """Trials to the first success over all models; one without success counts as the limit."""
    return sum(rows[name].first or MAX_TRIALS for rows in models.values())


if __name__ == "__main__":
    main()
