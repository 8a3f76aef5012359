"""What is reported of a search beside its model."""

from __future__ import annotations

from typing import Any

from quantuner.api.journal import Finished, History, encode
from quantuner.api.spec import digest
from quantuner.engine.engine import cpu_kind, libraries


def report(history: History, finished: Finished, seconds: float) -> dict[str, Any]:
    """The content of report.json; `finished` names a best trial.

    `sizes` are modelled, in MiB of parameters and buffers; `cost` is the modelled latency of the quantizable ops
    relative to fp32; `latency` is wall seconds of one whole evaluation, of the saved model `seconds`: its first, before
    it is compiled to int8 kernels, which tells nothing of its speed; `precisions` are what ops could fall back
    to, and which of those asked for the processor is not fast at; `journal` is the digest of the told trials.
    """
    baseline, best = history.trials[0], history.trials[finished.best or 0]
    first, last = history.launches[0], history.launches[-1]
    return {
        "baseline": baseline.accuracy,
        "accuracy": finished.accuracy,
        "meets": best.meets,
        "trial": finished.best,
        "trials": len(history.tried),
        "outcome": finished.outcome,
        "sizes": {"fp32": baseline.size, "model": best.size},
        "cost": best.cost,
        "latency": {"fp32": baseline.seconds, "model": round(seconds, 6)},
        "objectives": best.objectives,
        "precisions": {"offered": ["fp32", *filter(None, last.precisions.split(", "))], "left_out": last.left_out},
        "search": first.search,
        "model": first.model,
        "journal": digest([encode(trial) for trial in history.trials]),
        "versions": {**libraries(), "cpu": cpu_kind()},
    }
