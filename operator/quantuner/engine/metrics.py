"""Accuracy from a loader and a metric, as Neural Compressor's eval_dataloader and eval_metric give it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch

from quantuner.engine.batches import model_inputs
from quantuner.engine.devices import device_where, moved

CPU = torch.device("cpu")


class Metric(Protocol):
    """Collects batches and says what they come to. One with `compute` instead of `result` will do as well."""

    def reset(self) -> None: ...

    def update(self, preds: Any, labels: Any) -> None: ...

    def result(self) -> float: ...


class _Mean:
    """A metric that is a mean over rows, or its root."""

    def __init__(self, rows: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], power: float = 1.0) -> None:
        self._rows, self._power = rows, power
        self.reset()

    def reset(self) -> None:
        self._sum, self._count = 0.0, 0

    def update(self, preds: torch.Tensor, labels: Any) -> None:
        rows = self._rows(preds, torch.as_tensor(labels))
        self._sum += float(rows.double().sum())
        self._count += rows.numel()

    def result(self) -> float:
        if not self._count:
            raise ValueError("eval_dataloader gave no batch; it must be iterable more than once and not empty")
        return float((self._sum / self._count) ** self._power)


def topk(k: int = 1) -> Metric:
    """Share of rows whose label is among the k largest of the output `(N, classes)`; labels `(N,)` integers."""
    return _Mean(lambda preds, labels: (preds.topk(k, -1).indices == labels.view(-1, 1)).any(-1))


def _difference(preds: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return preds - labels.view_as(preds).to(preds.dtype)


METRICS: Mapping[str, Callable[..., Metric]] = {
    "topk": topk,
    "Accuracy": topk,
    "MAE": lambda: _Mean(lambda preds, labels: _difference(preds, labels).abs()),
    "MSE": lambda: _Mean(lambda preds, labels: _difference(preds, labels).square()),
    "RMSE": lambda: _Mean(lambda preds, labels: _difference(preds, labels).square(), power=0.5),
}


def evaluation(loader: Iterable[Any], metric: Any) -> Callable[[Any], float]:
    """A function of a model: the metric over the loader's batches `(input, label)`; the metric sees CPU tensors.

    `metric` is an object with reset, update(preds, labels) and result (or compute); a name of METRICS; or a dict of
    names to arguments, as `{"topk": 5}`. A dict of several has `weight`, a list, and the accuracy is mean(aᵢ·wᵢ).
    Raises `ValueError` for a metric that is none of these.
    """
    metrics, weights = _metrics(metric)

    def evaluate(model: Any) -> float:
        for one in metrics:
            one.reset()
        for batch in loader:
            if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
                raise ValueError("a batch of eval_dataloader must be (input, label), since eval_metric compares both")
            preds = moved(model(*moved(model_inputs(batch), device_where(model))), CPU)
            for one in metrics:
                one.update(preds, moved(batch[1], CPU))
        values = [_result(one) for one in metrics]
        return sum(v * w for v, w in zip(values, weights, strict=True)) / len(values)

    return evaluate


def _result(metric: Any) -> float:
    return float(metric.result() if hasattr(metric, "result") else metric.compute())


def _metrics(metric: Any) -> tuple[list[Metric], Sequence[float]]:
    if isinstance(metric, str):
        metric = {metric: {}}
    if not isinstance(metric, Mapping):
        ends = hasattr(metric, "result") or hasattr(metric, "compute")
        if not (ends and hasattr(metric, "update") and hasattr(metric, "reset")):
            raise ValueError(
                f"eval_metric must have reset, update(preds, labels) and result; {type(metric).__name__} has not all. "
                f"Or give the name of one: {', '.join(METRICS)}"
            )
        return [metric], [1.0]
    names = [name for name in metric if name not in ("weight", "higher_is_better")]
    metrics = [_named(name, metric[name]) for name in names]
    weights = metric.get("weight", [1.0] if len(metrics) == 1 else None)
    if weights is None or len(weights) != len(metrics):
        raise ValueError(
            f"eval_metric names {len(metrics)} metrics; an accuracy is one number, so give 'weight', a list with "
            f"as many (of a metric of the other direction a negative one); it is {weights!r}"
        )
    return metrics, weights


def _named(name: str, arguments: Any) -> Metric:
    if name not in METRICS:
        raise ValueError(f"eval_metric {name!r} is not known; known are {', '.join(METRICS)}, or give an object")
    if isinstance(arguments, Mapping):
        return METRICS[name](**arguments)
    return METRICS[name](arguments)
