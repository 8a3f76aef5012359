"""Ranks lost with each trial: kept through relaunches, and never a reason for a search to end."""

import json
import logging
from pathlib import Path

import pytest

from quantuner.distributed.losses import LOSSES_FILE, Losses


def test_what_is_recorded_is_known_to_the_next_launch(tmp_path: Path) -> None:
    losses = Losses(tmp_path)
    losses.record(7, 1)
    losses.record(3, 1)
    losses.record(7, 2)
    losses.record(5, 0)  # a rank may have been lost with it
    assert losses.known == {7: 2, 3: 1, 5: 0}
    assert Losses(tmp_path).known == {7: 2, 3: 1, 5: 0}


def test_those_that_count_half_are_kept_and_fail_a_trial_by_their_sum(tmp_path: Path) -> None:
    Losses(tmp_path).record(7, 1.5)
    losses = Losses(tmp_path)
    assert losses.known == {7: 1.5}
    assert losses.failed(7) is None
    losses.record(7, 2.0)
    failed = losses.failed(7)
    assert failed is not None
    assert failed.error.startswith("2 ranks were lost with this trial, ")


def test_another_search_begins_with_none(tmp_path: Path) -> None:
    Losses(tmp_path).record(7, 1)
    assert Losses(tmp_path, anew=True).known == {}
    assert Losses(tmp_path).known == {}


def test_a_search_without_a_folder_keeps_them_for_itself() -> None:
    losses = Losses()
    losses.record(7, 1)
    assert losses.known == {7: 1}
    assert Losses().known == {}


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b'{"7": 1, "9',
        b"\xff\x00\x00",
        b"[7, 1]",
        b"null",
        b'{"seven": 1}',
        b'{"7": "1"}',
        b'{"7": true}',
        b'{"7": -1}',
        b'{"7": 1.25}',
        b'{"7": NaN}',
        b'{"7": Infinity}',
    ],
)
def test_a_damaged_file_is_told_and_forgotten(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / LOSSES_FILE).write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        losses = Losses(tmp_path)
    assert losses.known == {}
    assert "is forgotten" in caplog.text
    assert LOSSES_FILE in caplog.text
    losses.record(4, 1)
    assert Losses(tmp_path).known == {4: 1}


def test_a_disk_that_takes_nothing_does_not_end_the_search(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    losses = Losses(tmp_path / "gone")
    with caplog.at_level(logging.WARNING):
        losses.record(7, 1)
    assert losses.known == {7: 1}
    assert "is not kept" in caplog.text


def test_the_file_is_replaced_whole(tmp_path: Path) -> None:
    losses = Losses(tmp_path)
    losses.record(7, 1)
    with (tmp_path / LOSSES_FILE).open(encoding="utf-8") as before:
        losses.record(8, 1)
        assert json.load(before) == {"7": 1}  # who reads meanwhile has the old text
