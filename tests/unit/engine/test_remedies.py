"""What cannot be captured is told with the user's line and what to change there."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.capture import capture
from tests.unit.engine import uncapturable
from tests.unit.engine.models import engine_of

ROWS = torch.ones(3, 4)


@dataclass(frozen=True)
class Case:
    make: Callable[[], nn.Module]
    advice: str
    inputs: tuple[Any, ...] = (ROWS,)
    has_line: bool = True


CASES = [
    Case(uncapturable.Branches, "choose with torch.where(condition, a, b)"),
    Case(uncapturable.Repeats, "choose with torch.where(condition, a, b)"),
    Case(uncapturable.CutsByValue, "an argument of the model's constructor"),
    Case(uncapturable.UsesNumpy, "use torch's function of the same name"),
    Case(uncapturable.Packs, "give padded tensors", (torch.ones(3, 5, 4), torch.tensor([5, 4, 2]))),
    Case(uncapturable.CountsCalls, "x = x + 1 for x += 1"),
    Case(uncapturable.WritesToItsInput, "x = x + 1 for x += 1"),
    Case(uncapturable.ByKeyword, "wrap the model in one whose forward() takes x by position"),
    Case(uncapturable.TakesTwo, "batches are (input, label) or ((input, input, …), label)"),
    Case(uncapturable.Looks, "self.model(**batch)", ({"ids": torch.ones(3, 4).long()},)),
    Case(uncapturable.TakesAnObject, "what an object holds", (uncapturable.Holder(ROWS),), has_line=False),
    Case(uncapturable.TakesAnObject, "convert arrays with torch.as_tensor", (ROWS.numpy(),), has_line=False),
    Case(uncapturable.GivesAnObject, "return what the object holds as a dict", has_line=False),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.make.__name__)
def test_the_error_names_the_line_and_the_remedy(case: Case) -> None:
    with pytest.raises(SearchError) as caught:
        capture(case.make(), case.inputs)
    assert caught.value.reason == Failure.MODEL_NOT_CAPTURABLE
    assert case.advice in caught.value.message
    if case.has_line:
        assert f" at uncapturable.py:{_marked_line(case.make)}" in caught.value.message


def _marked_line(make: Any) -> int:
    lines, start = inspect.getsourcelines(make.forward)
    return start + next(i for i, line in enumerate(lines) if "# this line" in line)


def test_a_batch_of_another_size_than_the_model_allows_is_told_with_the_remedy() -> None:
    engine = engine_of(uncapturable.FixesItsBatch(), loader=[(ROWS, 0), (torch.ones(2, 4), 0)])
    with pytest.raises(SearchError, match=r"Guard failed: x\.size\(\)\[0\] == 3; .*drop the last \(drop_last=True\)"):
        engine.calibrate()
