"""Values that are worth a look for what is below 0."""

import torch
from torch import nn

from quantuner.engine.capture import capture
from quantuner.engine.switch.signs import hardly_negative
from tests.unit.engine.models import images, seeded


class Signs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.conv(x)
        positive, gate = y.relu(), y.sigmoid()
        pooled = nn.functional.max_pool2d(positive, 2).mean((2, 3))
        hardly = (positive + gate, torch.cat([positive, gate]), pooled, pooled.softmax(1), y.abs())
        maybe = (y, y + positive, positive - gate, self.head(pooled), positive * y)
        return (*hardly, *maybe)


def test_they_are_what_relus_and_their_like_give_and_what_is_added_up_or_moved_of_it() -> None:
    graph = capture(seeded(Signs), (images(),)).graph.graph
    results = graph.output_node().args[0]
    found = hardly_negative(graph)
    assert [node in found for node in results] == [True] * 5 + [False] * 5  # type: ignore[union-attr]
