"""The task of the contract suite: a small residual network that int8 moves, judged by how far."""

import torch
from torch import nn

from quantuner import Task

SAMPLES = 200


class Small(nn.Module):
    """Two convolutions with a connection around the second, two linears."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1)])
        self.hidden = nn.Linear(8 * 4 * 4, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(N, 1, 8, 8)` to `(N, 5)` logits."""
        x = self.stem(x).relu()
        x = (x + self.blocks[0](x)).relu()
        x = nn.functional.avg_pool2d(x, 2).flatten(1)
        y: torch.Tensor = self.head(self.hidden(x).relu())
        return y


def task() -> Task:
    """Its accuracy is 1 for the fp32 model's logits, and less the farther away."""
    torch.manual_seed(0)
    model = Small().eval()
    with torch.no_grad():  # an outlier channel leaves the others few levels
        model.get_parameter("stem.weight")[0] *= 30
        model.get_parameter("blocks.0.weight")[:, 0] /= 30
    images = torch.randn(SAMPLES, 1, 8, 8)
    with torch.no_grad():
        wanted = model(images)

    def closeness(candidate: nn.Module) -> float:
        return 1.0 - float((candidate(images) - wanted).abs().mean() / wanted.std())

    batches = [(images[start : start + 50], wanted[start : start + 50].argmax(1)) for start in range(0, SAMPLES, 50)]
    return Task(model=model, calib_dataloader=batches, eval_func=closeness)


def by_metric() -> Task:
    """The same network, judged by a built-in metric: how far its logits are off, in batches of several sizes."""
    known = task()
    images = torch.cat([x for x, _ in known.calib_dataloader])
    with torch.no_grad():
        batches = [(x, known.model(x)) for x in torch.split(images, [60, 50, 40, 30, 20])]
    return Task(
        model=known.model, calib_dataloader=known.calib_dataloader, eval_dataloader=batches, eval_metric={"RMSE": {}}
    )
