"""A small transformer, its checkpoint, and the same model without weights."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from tests.unit.engine.recipes.cases import normal, seeded_module

WORDS, WIDTH = 50, 32


class Encoder(nn.Module):
    """Embeds, one block of norm and linears, and the embedding again as the head: a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """`(N, L) int64` to `(N, L, WORDS)`."""
        x = self.embed(words)
        y: torch.Tensor = self.head(x + self.down(self.up(self.norm(x)).relu()))
        return y


DATA = normal(8, 6).abs().mul(1e4).long() % WORDS


def saved(make: Callable[[], nn.Module], folder: Path) -> nn.Module:
    """The model, whose weights are in `folder` now."""
    model = seeded_module(make)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != "head.weight"}
    save_file(tensors, folder / "model.safetensors")
    return model


def empty(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return make()
