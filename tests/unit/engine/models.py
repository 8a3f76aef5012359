"""Tiny models for the engine's tests, with fixed weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from quantuner.api.spec import Override, Quantization
from quantuner.api.task import Task
from quantuner.engine.devices import sums_overflow
from quantuner.engine.engine import Engine


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """The module in evaluation mode with weights from seed 0; batch norms have seen data."""
    torch.manual_seed(0)
    model = make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


class Net(nn.Module):
    """Convolution, batch norm, ReLU, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, 2, 4, 4)` to `(N, 3)`, float32."""
        y: torch.Tensor = self.head(self.stem(x).relu().flatten(1))
        return y


class Shared(nn.Module):
    """One linear, called twice: first with x, then with small values."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(self.fc(x).tanh())
        return y


class Branching(nn.Module):
    """Control flow that depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:  # the line that the error must name
            return -x
        y: torch.Tensor = self.fc(x)
        return y


class Volumes(nn.Module):
    """Every quantizable type, string padding and a dead branch included."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(1, 2, 3, padding="same")
        self.two = nn.Conv2d(1, 2, 3, padding="same")
        self.three = nn.ModuleDict({"deep": nn.Conv3d(1, 2, 1)})
        self.last = nn.Linear(4, 2)
        self.unused = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, 4)` to `(N, 2)`."""
        self.unused(x)
        a = self.one(x[:, None]).sum((1, 2))
        b = self.two(x[:, None, None].expand(-1, 1, 4, 4)).sum((1, 2, 3))
        c = self.three["deep"](x[:, None, None, None]).sum((1, 2, 3, 4))
        y: torch.Tensor = self.last(x) + (a + b + c)[:, None]
        return y


class Computed(nn.Module):
    """A linear whose weight is computed, and one whose weight is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.full((4, 4), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.fc(x), self.scale * 2)


class Upsampling(nn.Module):
    """Transposed convolutions of every dimension; the second has two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.ConvTranspose1d(4, 6, 3)
        self.two = nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2)
        self.three = nn.ConvTranspose3d(1, 2, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, 4)` to `(N, 10)`."""
        a = self.one(x[:, :, None] * torch.arange(4.0)).tanh()
        b = self.two(x[:, :, None, None].expand(-1, -1, 2, 2)).mean(3)
        c = self.three(x.view(-1, 1, 1, 2, 2)).flatten(1)[:, :1]
        y: torch.Tensor = torch.cat([a.mean(2), b.amax(2)[:, :3], c], 1)
        return y


class Product(nn.Module):
    """Attention written out: products of activations, of integers, and with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(4, 4), nn.Linear(4, 4)
        self.mixing = nn.Parameter(torch.ones(2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, 4)` to `(N, 2, 2)`."""
        query, key = self.query(x).view(-1, 2, 2), self.key(x).view(-1, 2, 2)
        scores = torch.matmul(query, key.transpose(1, 2)).softmax(-1)
        places = torch.ones(2, 2, dtype=torch.int64) @ x[:, :2].long()[:2].expand(2, 2)
        return torch.bmm(scores, key) @ self.mixing + places.sum()


class Routed(nn.Module):
    """Sends rows whose first number is above 0 to an expert of two layers, as a mixture of experts does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.expert = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, 4)` to `(N, 4)`."""
        y = self.first(x)
        chosen = (x[:, 0] > 0).nonzero().flatten()
        z: torch.Tensor = y.index_copy(0, chosen, self.expert(y[chosen]))
        return z


class Unbatched(nn.Module):
    """A convolution without a batch: rows are its positions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(4, 6, 3, padding=1), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(L, 4)` to `(L, 3)`."""
        y: torch.Tensor = self.head(self.conv(x.T).T)
        return y


class Looked(nn.Module):
    """An embedding and a linear; the first row is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.fc = nn.Embedding(10, 4, padding_idx=0), nn.Linear(4, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """`(N, T) int64` to `(N, T, 3)`."""
        y: torch.Tensor = self.fc(self.tokens(ids))
        return y


class Tied(nn.Module):
    """One weight that is looked up and multiplied with, as language models have it."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.fc = nn.Embedding(10, 4), nn.Linear(4, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """`(N, T) int64` to `(N, T, 10)`."""
        return nn.functional.linear(self.fc(self.tokens(ids)), self.tokens.weight)


class Attention(nn.Module):
    """Attention of a sequence to itself, and a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, T, 4)` to `(N, T, 2)`."""
        y: torch.Tensor = self.head(self.attention(x, x, x, need_weights=False)[0])
        return y


class Learned(nn.Module):
    """Ops whose inputs the model holds: queries that are learned, and places that are not (Perceiver, Swin)."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(3, 4))
        self.register_buffer("places", torch.randn(1, 2, 3, 3))
        self.query, self.key, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.bias = nn.Conv2d(2, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, 4)` to `(N, 3)`."""
        scores = (self.key(x) @ self.query(self.queries).T + self.bias(self.places).flatten()).softmax(-1)
        y: torch.Tensor = self.head(scores @ self.queries)
        return y


def ids(count: int = 8, seed: int = 1) -> torch.Tensor:
    """`(N, 5) int64` below 10."""
    return torch.randint(0, 10, (count, 5), generator=torch.Generator().manual_seed(seed))


def rows(count: int = 8, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


OVERFLOWS = sums_overflow(torch.cpu.get_capabilities())
"""Whether models that are compiled here must have a reduced range."""

ALL_FAST = {"avx512_bf16": True, "avx512_fp16": True}
ALL_PRECISIONS = ("bf16", "fp16", "fp32")


def images(count: int = 8, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 2, 4, 4, generator=torch.Generator().manual_seed(seed))


def engine_of(
    model: nn.Module,
    *,
    loader: Any = None,
    eval_func: Callable[[Any], Any] | None = None,
    approach: str = "static",
    objectives: tuple[str, ...] = ("performance",),
    op_types: tuple[Override, ...] = (),
    precisions: tuple[str, ...] = ("fp32",),
    reduce_range: bool = False,
) -> Engine:
    """An engine that evaluates the mean output on 16 images, unless told otherwise.

    Its processor counts as fast at every precision: torch computes in all of them everywhere.
    """
    held_out = images(16, seed=2)

    def mean(candidate: Any) -> float:
        return float(candidate(held_out).mean())

    task = Task(
        model=model,
        calib_dataloader=[(images(), torch.zeros(8))] if loader is None else loader,
        eval_func=eval_func or mean,
    )
    quantization = Quantization(approach, op_types=op_types, precisions=precisions, reduce_range=reduce_range)
    return Engine(task, quantization, objectives, ALL_FAST)
