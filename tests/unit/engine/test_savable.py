"""What cannot be saved is told when a model is captured, before a search; what can be is captured."""

import math
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.utils import _pytree

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine import artifact
from quantuner.engine.capture import capture
from quantuner.engine.quiet import quiet
from quantuner.engine.sums import scale_after_sums
from quantuner.space.config import TuneConfig


class Pair(NamedTuple):
    value: torch.Tensor
    more: torch.Tensor


class Made:
    """A class that torch knows of from its library alone, as transformers' outputs."""

    def __init__(self, value: torch.Tensor) -> None:
        self.value = value


_pytree.register_pytree_node(
    Made, lambda made: ([made.value], None), lambda parts, _: Made(*parts), serialized_type_name="tests.Made"
)


@torch.library.custom_op("quantuner_tests::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


@twice.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def doubled(x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = twice(x)
    return result


class Returning(nn.Module):
    def __init__(self, returned: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.head, self.returned = nn.Linear(3, 2), returned

    def forward(self, x: torch.Tensor) -> Any:
        return self.returned(self.head(x))


class Taking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, pair: Pair) -> torch.Tensor:
        result: torch.Tensor = self.head(pair.value) + self.head(pair.more)
        return result


X = torch.ones(4, 3)


@pytest.mark.parametrize(
    ("returned", "name"),
    [
        (lambda y: Pair(y, y + 1), "Pair"),
        (Made, "Made"),
        (lambda y: {"all": [y, (Made(y),)]}, "Made"),
        (lambda y: y.max(1), "max"),
    ],
)
def test_what_torch_alone_cannot_make_is_refused(returned: Callable[[torch.Tensor], Any], name: str) -> None:
    with pytest.raises(SearchError, match=rf"forward\(\) returns a \S*{name}\b.* tuples, lists and dicts") as raised:
        capture(Returning(returned), (X,))
    assert raised.value.reason is Failure.MODEL_NOT_CAPTURABLE


def test_so_is_what_a_model_takes() -> None:
    with pytest.raises(SearchError, match=r"forward\(\) takes a \S*Pair\b"):
        capture(Taking(), (Pair(X, X),))


class Kind(Enum):
    """Of keys that only the user's code knows."""

    BEST = "best"


@pytest.mark.parametrize("returned", [lambda y: {Kind.BEST: y}, lambda y: [OrderedDict({("a", 1): y})]])
def test_a_key_that_torch_alone_cannot_make_is_refused(returned: Callable[[torch.Tensor], Any]) -> None:
    with pytest.raises(
        SearchError, match=r"forward\(\) returns a dict with the key .*; let keys be text or numbers"
    ) as raised:
        capture(Returning(returned), (X,))
    assert raised.value.reason is Failure.MODEL_NOT_CAPTURABLE


class Keyed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, given: dict[str, torch.Tensor]) -> torch.Tensor:
        result: torch.Tensor = self.head(given["a(b)"])
        return result


def test_so_is_a_key_of_what_a_model_takes_that_torch_makes_code_of() -> None:
    with pytest.raises(SearchError, match=r"takes a dict with the key 'a\(b\)', .*, and text of letters"):
        capture(Keyed(), ({"a(b)": X},))


def test_an_operator_of_another_library_is_refused_with_its_line() -> None:
    called = r"calls torch\.ops\.quantuner_tests\.twice\.default at test_savable\.py:\d+, "
    with pytest.raises(SearchError, match=called) as raised:
        capture(Returning(doubled), (X,))
    assert raised.value.reason is Failure.MODEL_NOT_CAPTURABLE


def plus_in_a_branch(y: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = torch.cond(y.sum() > 0, doubled, torch.neg, (y,))
    return result


def test_so_is_one_in_a_branch() -> None:
    with pytest.raises(
        SearchError, match=r"calls torch\.ops\.quantuner_tests\.twice\.default.*, which a saved"
    ) as raised:
        capture(Returning(plus_in_a_branch), (X,))
    assert raised.value.reason is Failure.MODEL_NOT_CAPTURABLE


def test_so_is_one_of_torch_that_trusts_what_it_is_given() -> None:
    with pytest.raises(
        SearchError, match=r"repeat_interleave\.self_Tensor at .*, .* write outside .*; write it with other"
    ):
        capture(Returning(lambda y: y.repeat_interleave(torch.tensor([1, 2]), 1, output_size=3)), (X,))


class Keeping(nn.Module):
    """Has a module under a key that people choose."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key, self.heads = key, nn.ModuleDict({key: nn.Linear(3, 2)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.heads[self.key](x)
        return result


@pytest.mark.parametrize("key", ["user/x", "a-b", "<pad>", "a: b"])
def test_modules_are_named_as_people_do(key: str, tmp_path: Path) -> None:
    model = Keeping(key).eval()
    captured = capture(model, (X,))
    artifact.save(tmp_path / "model", scale_after_sums(captured.graph), captured.called, TuneConfig({}))
    assert artifact.load(tmp_path / "model").state_dict().keys() == {f"heads.{key}.weight", f"heads.{key}.bias"}


@pytest.mark.parametrize("key", ["user@x", "layer(1)", "a,b", "a=b", "[1]", "a=open('x', 'w')): pass #"])
def test_a_name_that_torch_makes_code_of_is_refused(key: str) -> None:
    """In a function's head, when the model is exported again to compile it."""
    with (
        quiet(),
        pytest.raises(
            SearchError, match=r"cannot be saved, since it has the text .*; give modules .* names of"
        ) as raised,
    ):
        capture(Keeping(key), (X,))
    assert raised.value.reason is Failure.MODEL_NOT_CAPTURABLE


@pytest.mark.parametrize("rounded", [math.ceil, math.floor, round])
def test_a_size_that_torch_cannot_write_is_refused(rounded: Callable[[float], int]) -> None:
    with pytest.raises(SearchError, match="cannot be saved, since it has what torch cannot write") as raised:
        capture(Returning(lambda y: y[: rounded(y.shape[0] / 3)]), (X,))
    assert raised.value.reason is Failure.MODEL_NOT_CAPTURABLE


def test_a_size_may_be_a_part_of_another(tmp_path: Path) -> None:
    captured = capture(Returning(lambda y: y[: int(y.shape[0] * 0.5)]).eval(), (X,))
    artifact.save(tmp_path / "model", scale_after_sums(captured.graph), captured.called, TuneConfig({}))
    assert len(artifact.load(tmp_path / "model")(torch.ones(5, 3))) == 2


class Halved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(self.conv(x), scale_factor=0.5, recompute_scale_factor=True)


def test_so_may_that_of_what_is_interpolated(tmp_path: Path) -> None:
    shapes = [torch.ones(2, 3, size) for size in (8, 12)]
    captured = capture(Halved().eval(), (shapes[0],), [(shapes[1],)])
    artifact.save(tmp_path / "model", scale_after_sums(captured.graph), captured.called, TuneConfig({}))
    assert artifact.load(tmp_path / "model")(torch.ones(2, 3, 10)).shape == (2, 2, 5)


@pytest.mark.parametrize(
    "returned",
    [
        lambda y: (y, [y, None]),
        lambda y: {"a b?": y, 1: OrderedDict(last=y)},
        lambda y: (y, 3, y.shape[0]),
    ],
)
def test_what_python_itself_makes_is_captured_saved_and_loaded(
    returned: Callable[[torch.Tensor], Any], tmp_path: Path
) -> None:
    model = Returning(returned).eval()
    captured = capture(model, (X,))
    artifact.save(tmp_path / "model", scale_after_sums(captured.graph), captured.called, TuneConfig({}))
    found, expected = artifact.load(tmp_path / "model")(X), model(X)
    assert _pytree.tree_structure(found) == _pytree.tree_structure(expected)
    assert all(map(_same, _pytree.tree_leaves(found), _pytree.tree_leaves(expected)))


def _same(found: Any, expected: Any) -> bool:
    return torch.equal(found, expected) if isinstance(expected, torch.Tensor) else bool(found == expected)
