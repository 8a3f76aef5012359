"""The real models that int8 is judged on, one of each family, and their data. Knows no tuner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks import pitch, search_problems, sequences
from benchmarks.search_problems import Loader


@dataclass(frozen=True)
class RealModel:
    model: nn.Module
    calibration: list[tuple[Any, torch.Tensor]]
    """Batches `(input, label)`."""
    accuracy: Callable[[Any], float]
    approach: str = "static"

    @property
    def loader(self) -> Loader:
        """The calibration batches, with the `batch_size` that Neural Compressor asks for."""
        inputs, labels = ([*parts] for parts in zip(*self.calibration, strict=True))
        return Loader(inputs, labels, len(labels[0]))


def digits() -> RealModel:
    """The residual network of examples/digits, as it is trained: with all channels in balance."""
    from examples.digits.digits import task

    return _of_example(task(octaves=1))


def resnet() -> RealModel:
    """The residual network of the search bench."""
    problem = search_problems.resnet()
    return RealModel(problem.model, [*problem.calibration], problem.accuracy)


def minilm() -> RealModel:
    """The sentence encoder of examples/minilm."""
    from examples.minilm.minilm import task  # here, since the others need no transformers

    return _of_example(task())


def _of_example(task: Any) -> RealModel:
    batches: Iterable[tuple[Any, torch.Tensor]] = task.calib_dataloader
    return RealModel(task.model, [*batches], task.eval_func)


def crepe(judged: int = 200) -> RealModel:
    """The pretrained pitch tracker on so many synthesized tones."""
    frames, pitches = pitch.tones(judged, seed=1)
    heard = [part.split(50) for part in pitch.tones(100, seed=2)]

    def accuracy(model: Any) -> float:
        return pitch.found_within(model, frames, pitches)

    return RealModel(pitch.pretrained(), [*zip(*heard, strict=True)], accuracy)


def lstm() -> RealModel:
    """The reader of digits, row by row; recurrent nets have ranges for each batch."""
    images, labels = (tensor[:100].split(50) for tensor in sequences.rows())
    batches = [*zip(images, labels, strict=True)]
    return RealModel(sequences.trained(), batches, sequences.read_right, approach="dynamic")


REAL_MODELS: Mapping[str, Callable[[], RealModel]] = {"digits": digits, "minilm": minilm, "crepe": crepe, "lstm": lstm}
"""What the tests tune."""
JUDGED: Mapping[str, Callable[[], RealModel]] = {"resnet": resnet, **REAL_MODELS}
"""What the accuracy bench compares."""
