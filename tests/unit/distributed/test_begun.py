"""The trial that a search in series is at, as its supervisor finds it when the process is gone."""

import contextlib
import logging
from pathlib import Path

import pytest

from quantuner.distributed.begun import BEGUN_FILE, Begun, settle
from quantuner.distributed.losses import LOSSES_FILE, Losses


def test_a_process_that_ends_in_a_trial_has_lost_a_rank_with_it(tmp_path: Path) -> None:
    begun = Begun(tmp_path)
    with begun.trial(1234567):
        pass
    with begun.trial(7):
        settle(tmp_path, blame=True)
    begun.close()
    assert Losses(tmp_path).known == {7: 1}
    assert not (tmp_path / BEGUN_FILE).exists()
    settle(tmp_path, blame=True)  # nobody has been at a trial since
    assert Losses(tmp_path).known == {7: 1}


def test_it_is_counted_with_those_that_were_lost_before(tmp_path: Path) -> None:
    Losses(tmp_path).record(7, 1)
    with contextlib.closing(Begun(tmp_path)) as begun, begun.trial(7):
        settle(tmp_path, blame=True)
    assert Losses(tmp_path).known == {7: 2}


def test_one_that_was_told_to_end_has_lost_nothing(tmp_path: Path) -> None:
    with contextlib.closing(Begun(tmp_path)) as begun, begun.trial(7):
        settle(tmp_path, blame=False)
    assert not (tmp_path / LOSSES_FILE).exists()
    assert not (tmp_path / BEGUN_FILE).exists()


def test_a_trial_that_is_over_is_not_blamed_however_it_ended(tmp_path: Path) -> None:
    begun = Begun(tmp_path)
    with pytest.raises(KeyboardInterrupt), begun.trial(7):
        raise KeyboardInterrupt
    assert (tmp_path / BEGUN_FILE).read_text().strip() == ""
    settle(tmp_path, blame=True)
    begun.close()
    assert Losses(tmp_path).known == {}


def test_a_search_without_a_folder_writes_nothing() -> None:
    begun = Begun()
    with begun.trial(7):
        begun.close()


def test_a_folder_that_takes_nothing_does_not_end_the_search(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begun = Begun(tmp_path / "gone")
    with caplog.at_level(logging.WARNING):
        for index in (1, 2):
            with begun.trial(index):
                pass
    assert caplog.text.count("will not be known as such") == 1
