"""Data are known by their first batch, whatever it is made of, and reading it disturbs nothing."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.data import first_batch_digest


def digest(loader: Iterable[Any]) -> str:
    return first_batch_digest(loader, Failure.CALIBRATION_FAILED, "calib_dataloader")


ONES = torch.ones(2, 3)
BATCHES = {
    "a tensor": ONES,
    "other values": ONES + 1,
    "another sign of zero": ONES * 0.0,
    "the other": ONES * -0.0,
    "another shape": torch.ones(3, 2),
    "another type": ONES.double(),
    "brain floats": ONES.bfloat16(),
    "with a label": (ONES, 3),
    "with another label": (ONES, 4),
    "by name": {"x": ONES},
    "an array": np.ones((2, 3), np.float32),
    "another array": np.zeros((2, 3), np.float32),
    "a text": "text",
    "nothing": None,
}


def test_batches_that_differ_in_anything_differ_and_equal_ones_do_not() -> None:
    digests = {name: digest([batch]) for name, batch in BATCHES.items()}
    assert len(set(digests.values())) == len(BATCHES)
    again = {name: digest([torch.clone(b) if isinstance(b, torch.Tensor) else b]) for name, b in BATCHES.items()}
    assert again == digests


def test_a_strided_tensor_is_its_values() -> None:
    values = torch.arange(6.0).reshape(2, 3)
    assert digest([values.t().contiguous().t()]) == digest([values])


def test_only_the_first_batch_is_read_and_an_empty_loader_is_one_too() -> None:
    def batches() -> Iterator[Any]:
        yield ONES
        raise AssertionError("a second batch was read")

    class Loader:
        def __iter__(self) -> Iterator[Any]:
            return batches()

    assert digest(Loader()) == digest([ONES])
    assert digest([]) == digest([None])


def test_objects_are_told_apart_by_kind_not_by_address() -> None:
    class Sample:
        pass

    assert digest([Sample()]) == digest([Sample()])
    assert digest([Sample()]) != digest([object()])


def test_data_that_can_be_read_once_only_are_left_unread() -> None:
    once = iter([ONES])
    assert digest(once) == ""
    assert list(once) == [ONES]


def test_a_loader_that_shuffles_gives_the_next_pass_what_it_would_have_given() -> None:
    loader = DataLoader(TensorDataset(torch.arange(100.0)), batch_size=10, shuffle=True)
    torch.manual_seed(7)
    untouched = [batch for (batch,) in loader]
    torch.manual_seed(7)
    first = digest(loader)
    assert first == digest([[untouched[0]]])
    assert all(torch.equal(a, b) for a, (b,) in zip(untouched, loader, strict=True))


def test_a_loader_that_raises_is_the_users_error() -> None:
    class Broken:
        def __iter__(self) -> Iterator[Any]:
            raise OSError("no data on this host")

    with pytest.raises(
        SearchError, match=r"reading calib_dataloader raised at .*OSError: no data on this host"
    ) as caught:
        digest(Broken())
    assert caught.value.reason == Failure.CALIBRATION_FAILED
