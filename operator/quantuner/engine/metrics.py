"""Accuracy from a loader and a metric, as Neural Compressor's eval_dataloader and eval_metric give it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch

from quantuner.api.trial import Limit
from quantuner.engine.batches import model_inputs
from quantuner.engine.data import Contents
from quantuner.engine.devices import device_where, moved
from quantuner.engine.shares import Addend, Share, finite, sums
from quantuner.engine.weighting import KEYS, direction_of, weights_of

CPU = torch.device("cpu")


class Metric(Protocol):
    """Collects batches and says what they come to. One with `compute` instead of `result` will do as well."""

    def reset(self) -> None: ...

    def update(self, preds: Any, labels: Any) -> None: ...

    def result(self) -> float: ...


class _Mean:
    """A metric that is a mean over rows, or its root. Every row has a value between 0 and `most`."""

    def __init__(
        self, rows: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], most: float = math.inf, power: float = 1.0
    ) -> None:
        self._rows, self._most, self._power = rows, most, power
        self.reset()

    def reset(self) -> None:
        self._sum, self.count = 0.0, 0

    def update(self, preds: torch.Tensor, labels: Any) -> None:
        value, count = self.addend(preds, labels)
        self._sum += value
        self.count += count

    def result(self) -> float:
        return self.of(self._sum, self.count)

    def addend(self, preds: torch.Tensor, labels: Any) -> Addend:
        """What a batch adds: the sum over its rows, and how many they are."""
        if not isinstance(preds, torch.Tensor):
            raise TypeError(
                f"a built-in metric compares one output, and the model returns {type(preds).__name__}; give a metric "
                "of your own that takes what it needs of it, or wrap the model to return that"
            )
        rows = self._rows(preds, torch.as_tensor(labels))
        return float(rows.double().sum()), rows.numel()

    def of(self, total: float, count: int) -> float:
        """The result of a sum over so many rows."""
        if not count:
            raise ValueError("eval_dataloader gave no batch; it must be iterable more than once and not empty")
        return float((total / count) ** self._power)

    def between(self, count: int) -> tuple[float, float]:
        """What the result of `count` rows lies between, given those that were seen.

        To the last bit: a sum of numbers that are not negative never falls by a further one, and rounding keeps
        order. A root is not known to keep it; it errs by less than a unit in the last place, so that two are enough.
        """
        if self.count > count:
            return -math.inf, math.inf
        highest = self._sum + self._most * (count - self.count) if self.count < count else self._sum
        low, high = ((value / count) ** self._power for value in (self._sum, highest))
        return (low, high) if self._power == 1.0 else (_ulps(low, -2), _ulps(high, 2))


def _ulps(value: float, steps: int) -> float:
    for _ in range(abs(steps)):
        value = math.nextafter(value, math.copysign(math.inf, steps))
    return value


def topk(k: int = 1) -> Metric:
    """Share of rows whose label is among the k largest of the output `(N, classes)`; labels `(N,)` integers.

    A row that holds NaN is wrong: torch takes NaN for the largest, so that one that overflowed might be right by luck.
    """
    return _Mean(lambda preds, labels: _is_among(preds, labels, k), most=1.0)


def _is_among(preds: torch.Tensor, labels: torch.Tensor, k: int) -> torch.Tensor:
    if preds.dim() != 2 or labels.numel() != len(preds):
        raise ValueError(
            f"topk compares outputs (N, classes) with N labels, the number of a class each, not {tuple(preds.shape)} "
            f"with {tuple(labels.shape)}; reshape them in the model and the loader (one-hot labels: argmax(-1)), or "
            "give a metric of your own"
        )
    if k > preds.shape[-1]:
        raise ValueError(f"topk with k={k} of {preds.shape[-1]} classes counts every row; give a smaller k")
    right = (preds.topk(k, -1).indices == labels.reshape(-1, 1)).any(-1)
    return right & ~preds.isnan().any(-1)


def _difference(preds: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """In double precision: uint8 has nothing below 0, and fp16 no square above 65,504.

    Labels `(N,)` are those of outputs `(N, 1)`: sizes of 1 may be left out.
    """
    if _sizes(preds) != _sizes(labels):
        raise ValueError(
            "MAE, MSE and RMSE compare outputs with labels of their shape, up to sizes of 1, not "
            f"{tuple(preds.shape)} with {tuple(labels.shape)}; permute or reshape them in the model or the loader, or "
            "give a metric of your own"
        )
    wide = torch.complex128 if preds.is_complex() else torch.float64
    return preds.to(wide) - labels.reshape(preds.shape).to(wide)


def _sizes(value: torch.Tensor) -> list[int]:
    return [size for size in value.shape if size != 1]


METRICS: Mapping[str, Callable[..., Metric]] = {
    "topk": topk,
    "Accuracy": topk,
    "MAE": lambda: _Mean(lambda preds, labels: _difference(preds, labels).abs()),
    "MSE": lambda: _Mean(lambda preds, labels: _difference(preds, labels).square()),
    "RMSE": lambda: _Mean(lambda preds, labels: _difference(preds, labels).square(), power=0.5),
}


def _best(low: float, high: float, weight: float) -> float:
    """The end that gives most of what is counted so much; a weight of 0 takes the one that is finite."""
    return high if weight > 0 else low


class Evaluation:
    """A function of a model: metrics over the loader's batches `(input, label)`."""

    def __init__(
        self,
        loader: Iterable[Any],
        metrics: Sequence[Metric],
        weights: Sequence[float],
        higher_is_better: bool | None = None,
    ) -> None:
        """The accuracy is the mean of each metric's result times its weight."""
        self._loader, self._metrics, self._weights = loader, tuple(metrics), tuple(weights)
        self.higher_is_better = higher_is_better
        """Of the accuracy, as the user said it of the metrics; None where nothing was said."""
        self.batches: int | None = None
        """How many the last whole evaluation had; None before the first."""

    def __call__(self, model: Any) -> float:
        for _ in self._batches(model):
            pass
        return self._accuracy([_result(one) for one in self._metrics])

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows that each metric counted last; empty where one of them is the user's own."""
        return tuple(one.count for one in self._means) if self.divisible else ()

    @property
    def divisible(self) -> bool:
        """Whether the accuracy is made of sums over rows: all metrics are built in."""
        return len(self._means) == len(self._metrics)

    @property
    def _means(self) -> list[_Mean]:
        return [one for one in self._metrics if isinstance(one, _Mean)]

    def share(self, model: Any, part: int, parts: int) -> Share:
        """Evaluates the batches whose number is `part` modulo `parts`. Metrics must be built in.

        The others are read, too: their content shows in the end whether all ranks saw the same data. Raises
        `ValueError` where a batch cannot be judged, and what the model raises.
        """
        seen, addends, batches = Contents(), [], 0
        for batch in self._loader:
            seen.update(batch)
            if batches % parts == part:
                preds, labels = _judged(model, batch)
                addends.append(finite(tuple(one.addend(preds, labels) for one in self._means)))
            batches += 1
        return Share(seen.value, batches, tuple(addends))

    def together(self, shares: Sequence[Share]) -> tuple[float, tuple[int, ...]]:
        """(accuracy, rows of each metric) as one evaluation of all batches gives them, to the bit.

        Changes nothing here, so that another thread may evaluate. Raises `ValueError` where shares are of other data.
        """
        totals = sums(shares) or [(0.0, 0)] * len(self._metrics)
        values = [one.of(*total) for one, total in zip(self._means, totals, strict=True)]
        return self._accuracy(values), tuple(count for _, count in totals)

    def bounds(self, model: Any, limit: Limit) -> Iterator[float]:
        """Evaluates batch by batch, and yields after each what the accuracy cannot be better than.

        After the last it yields the accuracy itself. Metrics must be built in. Raises `ValueError` where the data are
        not as many rows as the limit says.
        """
        for _ in self._batches(model):
            ends = [one.between(count) for one, count in zip(self._means, limit.rows, strict=True)]
            yield self._accuracy(
                [
                    _best(*end, weight if limit.higher_is_better else -weight)
                    for end, weight in zip(ends, self._weights, strict=True)
                ]
            )
        if self.rows != limit.rows:
            raise ValueError(
                f"eval_dataloader gave {self.rows} rows, and {limit.rows} for the baseline; it must give the same at "
                "each pass"
            )
        yield self._accuracy([_result(one) for one in self._metrics])

    def _batches(self, model: Any) -> Iterator[None]:
        """Updates the metrics with one batch after the other."""
        for one in self._metrics:
            one.reset()
        batches = 0
        for batch in self._loader:
            preds, labels = _judged(model, batch)
            for one in self._metrics:
                one.update(preds, labels)
            batches += 1
            yield
        self.batches = batches

    def _accuracy(self, values: Sequence[float]) -> float:
        return sum(v * w for v, w in zip(values, self._weights, strict=True)) / len(values)


def _judged(model: Any, batch: Any) -> tuple[Any, Any]:
    """(predictions, labels) of a batch, on the CPU."""
    if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
        raise ValueError("a batch of eval_dataloader must be (input, label), since eval_metric compares both")
    return moved(model(*moved(model_inputs(batch), device_where(model))), CPU), moved(batch[1], CPU)


class Bounded:
    """An evaluation that is abandoned after the batch which proves that its accuracy is worse than a limit."""

    def __init__(self, evaluation: Evaluation, limit: Limit) -> None:
        self._evaluation, self._limit = evaluation, limit
        self.bound: float | None = None
        """The accuracy is no better, as far as the last call has proven."""
        self.abandoned = False
        """Whether the last call gave a bound instead of an accuracy."""

    def __call__(self, model: Any) -> float:
        """The accuracy, or a bound of it."""
        self.bound, self.abandoned = None, False
        *_, accuracy = self._until_excluded(model)
        return accuracy

    def _until_excluded(self, model: Any) -> Iterator[float]:
        for bound in self._evaluation.bounds(model, self._limit):
            if math.isfinite(bound):  # of NaN and infinity an error is made at the end, whatever the limit is
                tightest = min if self._limit.higher_is_better else max
                self.bound = bound if self.bound is None else tightest(bound, self.bound)
                self.abandoned = self._limit.excludes(bound)
            yield bound
            if self.abandoned:
                return


def evaluation(loader: Iterable[Any], metric: Any) -> Evaluation:
    """A function of a model: the metric over the loader's batches `(input, label)`; the metric sees CPU tensors.

    `metric` is an object with reset, update(preds, labels) and result (or compute); a name of METRICS; or a dict of
    names to arguments, as `{"topk": 5}`. A dict of several has `weight`, a list, and the accuracy is mean(aᵢ·wᵢ); it
    may say `higher_is_better`, a list. Raises `ValueError` for a metric that is none of these.
    """
    return Evaluation(loader, *_metrics(metric))


def _result(metric: Any) -> float:
    return float(metric.result() if hasattr(metric, "result") else metric.compute())


def _metrics(metric: Any) -> tuple[list[Metric], Sequence[float], bool | None]:
    if isinstance(metric, str):
        metric = {metric: {}}
    if not isinstance(metric, Mapping):
        ends = hasattr(metric, "result") or hasattr(metric, "compute")
        if not (ends and hasattr(metric, "update") and hasattr(metric, "reset")):
            raise ValueError(
                f"eval_metric must have reset, update(preds, labels) and result; {type(metric).__name__} has not all. "
                f"Or give the name of one: {', '.join(METRICS)}"
            )
        return [metric], [1.0], None
    metrics = [_named(name, metric[name]) for name in metric if name not in KEYS]
    weights = weights_of(metric, len(metrics))
    return metrics, weights, direction_of(metric, weights)


def _named(name: str, arguments: Any) -> Metric:
    if name not in METRICS:
        raise ValueError(f"eval_metric {name!r} is not known; known are {', '.join(METRICS)}, or give an object")
    make = METRICS[name]
    try:
        return make(**arguments) if isinstance(arguments, Mapping) else make(arguments)
    except TypeError as error:
        takes = ", ".join(inspect.signature(make).parameters) or "none"
        raise ValueError(f"eval_metric {name!r} does not take {arguments!r:.60}; its arguments are: {takes}") from error
