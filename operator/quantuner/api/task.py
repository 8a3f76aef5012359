"""What the user's callable returns: a model and how to calibrate and judge it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Task:
    """One tuning problem, as returned by the `module:callable` of `spec.task.entrypoint`.

    The objects are torch's, but named here by shape only, so that the resource's side of the
    house stays free of torch. Every rank calls the callable and must get the same weights and data.
    """

    model: Any
    """A `torch.nn.Module` in fp32 with its trained weights. It is not changed."""

    calib_dataloader: Iterable[Any]
    """Batches to calibrate with: `(input, label)` or `input`; an input is a tensor or a tuple of tensors.
    Iterated more than once, with the same batches each time: no shuffling."""

    eval_func: Callable[[Any], float] | None = None
    """Takes a model that is called like `model` and returns its accuracy, a finite number. Where
    `quantization.device` is cuda, the model's tensors are there, and so must be its inputs."""

    eval_dataloader: Iterable[Any] | None = None
    """Instead of `eval_func`, with `eval_metric`: batches `(input, label)`, the same at each pass."""

    eval_metric: Any = None
    """What is measured of them: a name, as `"topk"` or `"RMSE"`, a dict of names to arguments, or an object with
    reset, update(preds, labels) and result. With a built-in one, trials that can no longer matter are abandoned."""

    example_inputs: Any = None
    """Positional inputs to export the model with, as a tuple or a list; one alone may come as it is. None takes the
    first batch of `calib_dataloader` that holds samples. Their first dimension is the batch and should be 2 or more,
    so that it can stay dynamic."""

    train_func: Callable[[Any], Any] | None = None
    """Trains the model it is given, in place, where `quantization.approach` is qat; seeds what it draws itself.
    The model computes as the quantized one will, and has the user's parameters by their names."""
