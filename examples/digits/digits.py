"""Tuning a small residual network on scanned handwritten digits, as a Quantuner task.

The data are scikit-learn's: 1,797 scans of 8×8 pixels in 17 grey levels (UCI ML hand-written digits).
The network is trained here for some seconds, then judged on scans it has not seen.
"""

from collections.abc import Iterator

import torch
from sklearn.datasets import load_digits
from torch import nn

from quantuner import Task

TRAIN = 1200  # of 1,797 scans; the others are held out
BATCH = 64


class Block(nn.Module):
    """Two convolutions and a shortcut (He et al. 2015)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, inputs, H, W) float32` to `(N, outputs, H/stride, W/stride)`."""
        y: torch.Tensor = self.relu(self.bn1(self.conv1(x)))
        z: torch.Tensor = self.bn2(self.conv2(y)) + self.shortcut(x)
        return z.relu()


class DigitNet(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.first = Block(width, width, 1)
        self.middle = Block(width, 2 * width, 2)
        self.last = Block(2 * width, 2 * width, 1)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, 1, 8, 8) float32` to `(N, 10)` logits."""
        y: torch.Tensor = self.head(self.last(self.middle(self.first(self.stem(x)))).mean((2, 3)))
        return y


class Batches:
    """Calibration batches, the same at each pass."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return zip(self.images.split(BATCH), self.labels.split(BATCH), strict=True)


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for picked in torch.randperm(len(images), generator=generator).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[picked]), labels[picked]).backward()
            optimizer.step()


def unbalance(block: Block, octaves: int) -> None:
    """Gives the channels between a block's convolutions very different ranges, without changing what it computes.

    Channel k is multiplied by 2^(k mod octaves) before the ReLU and divided by it after, both exact in
    floating point. Trained networks have such channels (Nagel et al. 2019, arXiv:1906.04721, section 3.1); one
    int8 range for all of them leaves the small ones a few levels, so the second convolution wants fp32.
    """
    with torch.no_grad():
        scale = 2.0 ** (torch.arange(block.bn1.num_features) % octaves)
        block.bn1.weight.mul_(scale)
        block.bn1.bias.mul_(scale)
        block.conv2.weight.div_(scale.view(1, -1, 1, 1))


def task(width: int = 8, epochs: int = 8, octaves: int = 10) -> Task:
    """The tuning problem: model, calibration data, and accuracy on the held-out scans.

    Two blocks are unbalanced, so that the target is met only with some convolutions in fp32.
    """
    torch.manual_seed(0)  # every rank trains the same weights
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    model = DigitNet(width)
    train(model, images[:TRAIN], labels[:TRAIN], epochs)
    model.eval()
    for block in (model.first, model.last):
        unbalance(block, octaves)

    def accuracy(candidate: nn.Module) -> float:
        hits = sum(int((candidate(x).argmax(1) == y).sum()) for x, y in held_out)
        return hits / (len(images) - TRAIN)

    held_out = list(zip(images[TRAIN:].split(BATCH), labels[TRAIN:].split(BATCH), strict=True))
    return Task(model=model, calib_dataloader=Batches(images[:TRAIN], labels[:TRAIN]), eval_func=accuracy)
