"""Turns the ways in which a user may judge a model into one function: model to accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from quantuner.engine.metrics import evaluation


def judged_by(
    eval_func: Callable[[Any], float] | None,
    eval_dataloader: Iterable[Any] | None,
    eval_metric: Any,
) -> Callable[[Any], float]:
    """`eval_func`, or an `Evaluation` of loader and metric. Raises `ValueError` where neither or both are given."""
    if eval_func is not None:
        if eval_dataloader is not None or eval_metric is not None:
            raise ValueError("eval_func and eval_dataloader with eval_metric both judge the model; give one of them")
        return eval_func
    if eval_dataloader is None or eval_metric is None:
        parts = {"eval_dataloader": eval_dataloader, "eval_metric": eval_metric}
        given = [name for name, value in parts.items() if value is not None]
        raise ValueError(
            f"{'only ' + given[0] if given else 'nothing'} is given to judge the model; "
            "give eval_func(model) -> accuracy, or both eval_dataloader and eval_metric"
        )
    return evaluation(eval_dataloader, eval_metric)
