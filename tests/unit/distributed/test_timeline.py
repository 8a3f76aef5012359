import errno
import logging
import os
from pathlib import Path

import pytest

from quantuner.api.timeline import Ending, Kind, LaunchSpans, Span, read
from quantuner.api.trial import TrialResult
from quantuner.distributed.executors import Serial, Told
from quantuner.distributed.timeline import FLUSH_SECONDS, TIMELINE_FILE, Observer, Quiet, Timeline, Watched


class Clock:
    def __init__(self) -> None:
        self.seconds = 50.0

    def __call__(self) -> float:
        return self.seconds


def trial(index: int) -> Span:
    return Span(1, Kind.TRIAL, index, "", index / 10, (index + 1) / 10, Ending.TOLD)


def recorded(folder: Path) -> list[LaunchSpans]:
    return read((folder / TIMELINE_FILE).read_text().splitlines())


def opened(
    folder: Path,
    clock: Clock,
    *,
    anew: bool = False,
    beside: Path | None = None,
    limit: int = 100,
    began: float = 1e9,
) -> Timeline:
    return Timeline(folder, 3, anew=anew, beside=beside, limit=limit, clock=clock, wall=lambda: began)


def test_one_that_is_held_leaves_the_file_until_it_begins(tmp_path: Path) -> None:
    Timeline(tmp_path, 2).close()
    path = tmp_path / "timeline.jsonl"
    before = path.read_bytes()
    Timeline(tmp_path, 3, held=True).close()
    held = Timeline(tmp_path, 3, held=True)
    held.span(Span(0, Kind.SETUP, 0, "", 0.0, 1.0, Ending.TOLD))
    held.hosts(["here"])
    assert path.read_bytes() == before
    held.begin()
    held.close()
    first, second = read(path.read_text().splitlines())
    assert (first.ranks, second.ranks, second.hosts, len(second.spans)) == (2, 3, ("here",), 1)


def test_a_launch_with_its_hosts_spans_and_end(tmp_path: Path) -> None:
    clock = Clock()
    timeline = opened(tmp_path / "new", clock)
    timeline.hosts(["a", "b", "c"])
    clock.seconds += 2.5
    assert timeline.now() == 2.5
    timeline.span(trial(1))
    timeline.span(trial(2))
    timeline.close()
    timeline.close()
    timeline.span(trial(3))
    expected = LaunchSpans(began=1e9, ranks=3, hosts=("a", "b", "c"), spans=[trial(1), trial(2)], ended=2.5)
    assert recorded(tmp_path / "new") == [expected]


def test_many_spans_in_a_moment_are_one_write_and_a_slow_one_is_written_at_once(tmp_path: Path) -> None:
    clock = Clock()
    timeline = opened(tmp_path, clock)
    for index in range(50):
        timeline.span(trial(index))
    assert recorded(tmp_path)[0].spans == []
    clock.seconds += FLUSH_SECONDS
    timeline.span(trial(50))
    assert len(recorded(tmp_path)[0].spans) == 51
    clock.seconds += FLUSH_SECONDS
    timeline.span(trial(51))
    assert len(recorded(tmp_path)[0].spans) == 52
    timeline.close()


def test_launches_follow_each_other_whatever_the_one_before_left(tmp_path: Path) -> None:
    opened(tmp_path, Clock(), began=1e9).close()
    path = tmp_path / TIMELINE_FILE
    path.write_bytes(path.read_bytes() + b'[1,"trial",4')  # its rank 0 was killed inside this line
    second = opened(tmp_path, Clock(), began=2e9)
    second.span(trial(4))
    second.close()
    assert [(launch.began, launch.spans) for launch in recorded(tmp_path)] == [(1e9, []), (2e9, [trial(4)])]


def test_a_new_search_forgets_the_timeline_of_the_one_before(tmp_path: Path) -> None:
    opened(tmp_path, Clock(), began=1e9).close()
    opened(tmp_path, Clock(), began=2e9, anew=True).close()
    assert [launch.began for launch in recorded(tmp_path)] == [2e9]


def test_a_full_timeline_says_so_and_takes_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    timeline = opened(tmp_path, clock, limit=10)
    for index in range(100):
        timeline.span(trial(index))
    clock.seconds += 60
    timeline.close()
    [launch] = recorded(tmp_path)
    assert launch.spans == [trial(index) for index in range(10)]
    assert (launch.full, launch.ended) == (True, 60.0)
    assert caplog.text.count("the timeline is full") == 1
    again = opened(tmp_path, clock, limit=10)
    again.span(trial(0))
    again.close()
    assert (recorded(tmp_path)[1].spans, recorded(tmp_path)[1].full) == ([], True)


def test_a_folder_that_cannot_be_written_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / TIMELINE_FILE).mkdir()
    timeline = opened(tmp_path, Clock())
    for index in range(10):
        timeline.span(trial(index))
    timeline.hosts(["a"])
    timeline.close()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"no timeline is recorded in {tmp_path / TIMELINE_FILE}, the search goes on" in caplog.text


def test_a_full_disk_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / TIMELINE_FILE).symlink_to("/dev/full")
    timeline = Timeline(tmp_path, 2, anew=True)
    for index in range(10):
        timeline.span(trial(index))
    timeline.close()
    assert len(caplog.records) == 1
    assert os.strerror(errno.ENOSPC) in caplog.text


def test_a_launch_after_the_pod_is_lost_adds_to_what_the_volume_has(tmp_path: Path) -> None:
    pod, volume = tmp_path / "pod", tmp_path / "volume"
    clock = Clock()
    first = opened(pod, clock, anew=True, beside=volume, began=1e9)
    clock.seconds += FLUSH_SECONDS
    first.span(trial(1))  # and then the pod is gone
    second = opened(tmp_path / "new pod", clock, beside=volume, began=2e9)
    second.span(trial(2))
    second.close()
    assert [(launch.began, launch.spans) for launch in recorded(volume)] == [(1e9, [trial(1)]), (2e9, [trial(2)])]
    assert recorded(tmp_path / "new pod") == recorded(volume)
    first.close()


def test_a_volume_that_was_away_gets_what_it_has_missed(tmp_path: Path) -> None:
    pod, volume = tmp_path / "pod", tmp_path / "volume"
    opened(pod, Clock(), anew=True, began=1e9).close()
    opened(pod, Clock(), beside=volume, began=2e9).close()
    assert [launch.began for launch in recorded(volume)] == [1e9, 2e9]


def test_a_volume_that_cannot_be_written_leaves_the_pods_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "volume").write_text("no folder")
    timeline = opened(tmp_path / "pod", Clock(), beside=tmp_path / "volume")
    timeline.span(trial(1))
    timeline.close()
    assert recorded(tmp_path / "pod")[0].spans == [trial(1)]
    assert len(caplog.records) == 1


def test_trials_in_this_process_are_observed(tmp_path: Path) -> None:
    clock = Clock()
    timeline = opened(tmp_path, clock)

    def evaluate(seconds: float) -> TrialResult:
        clock.seconds += seconds
        return TrialResult(accuracy=None if seconds == 2 else 0.5, seconds=seconds)

    told: list[int] = []

    def tell(one: Told) -> bool:
        told.append(one.index)
        clock.seconds += 10
        return one.index == 5

    executor = Watched(Serial(evaluate), timeline)
    assert executor.run(3, [1, 2, 4, 8], tell)
    executor.close()
    timeline.close()
    assert told == [3, 4, 5]
    assert recorded(tmp_path)[0].spans == [
        Span(0, Kind.TRIAL, 3, "", 0.0, 1.0, Ending.TOLD),
        Span(0, Kind.TRIAL, 4, "", 11.0, 13.0, Ending.FAILED),
        Span(0, Kind.TRIAL, 5, "", 23.0, 27.0, Ending.TOLD),
    ]


def test_who_records_nothing_still_has_a_clock() -> None:
    quiet: Observer = Quiet()
    quiet.span(trial(1))
    before = quiet.now()
    assert quiet.now() >= before
