"""Values that are never negative are told from those that may be."""

import torch
from torch import nn

from quantuner.engine.capture import capture
from quantuner.engine.switch.signs import never_negative
from tests.unit.engine.models import images, seeded


class Signs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.conv(x)
        positive, gate = y.relu(), y.sigmoid()
        pooled = nn.functional.max_pool2d(positive, 2).mean((2, 3))
        never = (positive + gate, positive * gate, torch.cat([positive, gate]), pooled, pooled.softmax(1), y.abs())
        maybe = (y + positive, positive * -1.0, positive - gate, positive + (-1.0), self.head(pooled), positive * y)
        return (*never, *maybe)


def test_what_adds_multiplies_or_moves_only_such_values_gives_such_values() -> None:
    graph = capture(seeded(Signs), (images(),)).graph.graph
    results = graph.output_node().args[0]
    found = never_negative(graph)
    assert [node in found for node in results] == [True] * 6 + [False] * 6  # type: ignore[union-attr]


def test_none_of_them_is_ever_negative() -> None:
    graph = capture(seeded(Signs), (images(),)).graph
    found, seen = never_negative(graph.graph), []

    class Looking(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            value = super().run_node(n)
            if n in found:
                seen.append(bool((value >= 0).all()))
            return value

    Looking(graph).run(images(8, 3) * 100)
    assert len(seen) == len(found) >= 9
    assert all(seen)
