"""The journal on disk: what was appended survives its writer, a torn line was never told, other damage is refused."""

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from quantuner.api.errors import JournalError, SearchError
from quantuner.api.journal import Finished, Outcome, Record, encode
from quantuner.distributed.journal import (
    BEST_FILE,
    JOURNAL_FILE,
    JournalFolder,
    await_writer,
    read_lines,
    replace_text,
    sole_search,
    uninterrupted,
)
from tests.unit.records import TIME, launched, told

RECORDS: list[Record] = [
    launched(),
    told(0, 0.9),
    told(1, None, error="line\u2028separator, \x85 and 界"),
    told(2, 0.8),
]


def written(folder: Path, records: list[Record] | None = None) -> Path:
    """A folder with a journal, and the path of that journal."""
    journal = JournalFolder(folder)
    for record in RECORDS if records is None else records:
        journal.append(record)
    journal.close()
    return folder / JOURNAL_FILE


def reopened(folder: Path) -> JournalFolder:
    journal = JournalFolder(folder)
    journal.close()
    return journal


def test_a_reopened_journal_has_the_same_history(tmp_path: Path) -> None:
    journal = JournalFolder(tmp_path / "new" / "folder")
    for record in RECORDS:
        journal.append(record)
    journal.close()
    assert reopened(tmp_path / "new" / "folder").history == journal.history


def test_it_goes_on_after_the_last_line(tmp_path: Path) -> None:
    path = written(tmp_path)
    journal = JournalFolder(tmp_path)
    journal.append(told(3, 0.7))
    journal.close()
    assert read_lines(path) == [encode(record) for record in (*RECORDS, told(3, 0.7))]


def test_a_record_that_contradicts_the_history_is_not_written(tmp_path: Path) -> None:
    path = written(tmp_path)
    journal = JournalFolder(tmp_path)
    with pytest.raises(JournalError, match="the next index is 3"):
        journal.append(told(7, 0.5))
    journal.close()
    assert len(read_lines(path)) == len(RECORDS)


def test_a_record_that_no_line_can_hold_is_not_remembered_either(tmp_path: Path) -> None:
    written(tmp_path)
    journal = JournalFolder(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append(told(3, float("nan")))
    assert len(journal.history.trials) == 3
    journal.append(told(3, 0.5))
    journal.close()
    assert reopened(tmp_path).history == journal.history


def test_a_finished_search_goes_on_without_its_end_which_is_kept(tmp_path: Path) -> None:
    end = Finished(outcome=Outcome.MAX_TRIALS, best=2, accuracy=0.8, artifact="model", time=TIME)
    path = written(tmp_path, [*RECORDS, end])
    journal = JournalFolder(tmp_path)
    before = path.read_bytes()
    journal.reopen()
    assert (tmp_path / "journal.1.jsonl").read_bytes() == before
    with pytest.raises(JournalError, match="another search writes"):
        JournalFolder(tmp_path)
    journal.append(told(3, 0.7))
    journal.close()
    assert read_lines(path) == [encode(record) for record in (*RECORDS, told(3, 0.7))]
    assert reopened(tmp_path).history == journal.history
    assert sorted(one.name for one in tmp_path.iterdir()) == ["journal.1.jsonl", "journal.jsonl"]


@pytest.mark.parametrize("taken", [0, 1])
def test_a_finished_search_stays_as_it_was_where_the_disk_takes_no_more(
    tmp_path: Path, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file, or the first one only, is taken; there is room for the next attempt."""
    end = Finished(outcome=Outcome.MAX_TRIALS, best=2, accuracy=0.8, artifact="model", time=TIME)
    path = written(tmp_path, [*RECORDS, end])
    before = path.read_bytes()
    room = [True] * taken
    sync = os.fsync

    def synced(file: int) -> None:
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room.pop()
        sync(file)

    with contextlib.closing(JournalFolder(tmp_path)) as journal:
        with monkeypatch.context() as full:
            full.setattr(os, "fsync", synced)
            with pytest.raises(SearchError, match="No space left"):
                journal.reopen()
        assert [one.name for one in tmp_path.iterdir()] == ["journal.jsonl"]
        assert path.read_bytes() == before
        journal.reopen()
    assert (tmp_path / "journal.1.jsonl").read_bytes() == before


def test_a_second_writer_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    first = JournalFolder(tmp_path)
    with pytest.raises(JournalError, match=rf"another search writes .*; wait for it, end it \(kill {os.getpid()}\)"):
        JournalFolder(tmp_path)
    first.append(RECORDS[0])
    first.close()
    assert reopened(tmp_path).history.launches == [RECORDS[0]]


WHOLE = "".join(f"{encode(record)}\n" for record in RECORDS).encode()
LAST = len(encode(RECORDS[-1]).encode()) + 1


@pytest.mark.parametrize("missing", [1, 2, LAST // 2, LAST - 1], ids=lambda n: f"{n} bytes missing")
def test_a_torn_last_line_is_cut_off(tmp_path: Path, missing: int) -> None:
    path = tmp_path / JOURNAL_FILE
    path.write_bytes(WHOLE[:-missing])
    assert [trial.index for trial in reopened(tmp_path).history.trials] == [0, 1]
    assert path.read_bytes() == WHOLE[:-LAST]


@given(st.integers(0, len(WHOLE)))
def test_wherever_the_writer_died_the_whole_lines_are_read_and_appending_goes_on(
    tmp_path_factory: pytest.TempPathFactory, size: int
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    (folder / JOURNAL_FILE).write_bytes(WHOLE[:size])
    journal = JournalFolder(folder)
    kept = len(journal.history.launches) + len(journal.history.trials)
    assert kept == WHOLE[:size].count(b"\n")
    for record in RECORDS[kept:]:
        journal.append(record)
    journal.close()
    assert (folder / JOURNAL_FILE).read_bytes() == WHOLE


def test_torn_bytes_of_a_letter_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL_FILE
    path.write_bytes(WHOLE + '{"v":1,"op":"trial","error":"界'.encode()[:-1])
    assert len(reopened(tmp_path).history.trials) == 3
    assert path.read_bytes() == WHOLE


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(b"{}", "must be a JSON object with v and op", id="no record"),
        pytest.param(b"", "must be a JSON object", id="an empty line"),
        pytest.param(b"\0" * 20, "must be a JSON object", id="zeroes of an unflushed block"),
        pytest.param(b'{"v":1,"op":"fail","reason":"\xff"}', "can't decode byte 0xff", id="no UTF-8"),
    ],
)
def test_a_damaged_line_before_the_last_is_refused_with_its_number(tmp_path: Path, damage: bytes, says: str) -> None:
    lines = WHOLE.split(b"\n")
    (tmp_path / JOURNAL_FILE).write_bytes(b"\n".join([*lines[:2], damage, *lines[2:]]))
    with pytest.raises(JournalError, match=f"journal.jsonl, line 3: .*{says}"):
        JournalFolder(tmp_path)
    assert damage in (tmp_path / JOURNAL_FILE).read_bytes()


def test_a_missing_line_is_refused(tmp_path: Path) -> None:
    lines = WHOLE.split(b"\n")
    (tmp_path / JOURNAL_FILE).write_bytes(b"\n".join([*lines[:2], *lines[3:]]))
    with pytest.raises(JournalError, match="trial 2 told, but the next index is 1"):
        JournalFolder(tmp_path)


def test_what_was_appended_survives_the_sudden_death_of_its_writer(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from quantuner.distributed.journal import JournalFolder;"
        "from tests.unit.records import launched, told;"
        "j = JournalFolder(pathlib.Path(sys.argv[1]));"
        "[j.append(r) for r in (launched(), told(0, 0.9), told(1, 0.8))];"
        "print('told', flush=True); sys.stdin.read()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "told\n"
        os.kill(writer.pid, signal.SIGKILL)
    assert [trial.accuracy for trial in reopened(tmp_path).history.trials] == [0.9, 0.8]


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow over `size` bytes inside of the block, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 20])
def test_a_full_disk_takes_no_part_of_a_record_and_the_search_goes_on_when_there_is_room(
    tmp_path: Path, room: int
) -> None:
    path = written(tmp_path, RECORDS[:-1])
    before = path.read_bytes()
    journal = JournalFolder(tmp_path)
    with room_for(len(before) + room), pytest.raises(SearchError, match=r"journal.jsonl cannot be written: .*; give"):
        journal.append(RECORDS[-1])
    assert path.read_bytes() == before
    assert len(journal.history.trials) == 2
    journal.append(RECORDS[-1])
    journal.close()
    assert len(reopened(tmp_path).history.trials) == 3


def test_a_full_disk_keeps_the_best_configuration_before(tmp_path: Path) -> None:
    journal = JournalFolder(tmp_path)
    journal.describe_best({"trial": 1})
    with room_for(8), pytest.raises(SearchError, match=r"best.yaml cannot be written: "):
        journal.describe_best({"trial": 2})
    assert yaml.safe_load((tmp_path / BEST_FILE).read_text()) == {"trial": 1}
    journal.close()


def test_a_record_is_told_whole_by_a_process_that_is_told_to_stop_meanwhile(tmp_path: Path) -> None:
    program = """
import os, pathlib, signal, sys
from quantuner.distributed import journal
from tests.unit.records import launched
encode = journal.encode
def encode_when_told_to_stop(record):
    os.kill(os.getpid(), signal.SIGTERM)
    return encode(record)
journal.encode = encode_when_told_to_stop
journal.JournalFolder(pathlib.Path(sys.argv[1])).append(launched())
print("it goes on")
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, ""), done.stderr
    assert read_lines(tmp_path / JOURNAL_FILE) == [encode(launched())]


def test_a_signal_that_was_put_off_comes_to_who_waits_for_it() -> None:
    came: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append("signal"))
    try:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGTERM)
            came.append("block")
        assert came == ["block", "signal"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_writes_without_putting_anything_off(tmp_path: Path) -> None:
    thread = threading.Thread(target=written, args=(tmp_path,))
    thread.start()
    thread.join()
    assert len(read_lines(tmp_path / JOURNAL_FILE)) == len(RECORDS)


def test_a_journals_writer_is_awaited(tmp_path: Path) -> None:
    assert await_writer(tmp_path, 0)
    journal = JournalFolder(tmp_path)
    assert not await_writer(tmp_path, 0)
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(await_writer(tmp_path, 600)))
    thread.start()
    journal.close()
    thread.join()
    assert found == [True]
    JournalFolder(tmp_path).close()


def test_a_reader_sees_only_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL_FILE
    assert read_lines(path) == []
    path.write_bytes(b'{"a":1}\n{"b"')
    assert read_lines(path) == ['{"a":1}']


def test_the_best_configuration_is_replaced_whole(tmp_path: Path) -> None:
    journal = JournalFolder(tmp_path)
    journal.describe_best({"trial": 1, "accuracy": 0.5})
    journal.describe_best({"trial": 2, "accuracy": 0.75})
    journal.close()
    assert yaml.safe_load((tmp_path / BEST_FILE).read_text()) == {"trial": 2, "accuracy": 0.75}
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST_FILE, JOURNAL_FILE]


def test_a_text_is_replaced_by_renaming(tmp_path: Path) -> None:
    path = tmp_path / "status.yaml"
    replace_text(path, "old")
    reader = path.open()
    replace_text(path, "new")
    with reader:
        assert (reader.read(), path.read_text()) == ("old", "new")


def test_who_searches_in_the_folder_is_named(tmp_path: Path) -> None:
    with (
        sole_search(tmp_path),
        pytest.raises(JournalError, match=rf"another search runs in .*end it \(kill {os.getpid()}\), or name another"),
        sole_search(tmp_path),
    ):
        pass


def test_a_rank_that_is_left_of_a_search_is_named(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from quantuner.distributed.journal import JournalFolder;"
        "j = JournalFolder(pathlib.Path(sys.argv[1])); print('writes', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as left:
        assert left.stdout is not None
        assert left.stdout.readline() == "writes\n"
        with pytest.raises(JournalError, match=rf"another search runs in .*\(kill {left.pid}\)"), sole_search(tmp_path):
            pass
        left.kill()


def test_a_text_that_the_disk_does_not_take_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "status.yaml"
    replace_text(path, "old")
    with room_for(5), pytest.raises(OSError, match=f"File too large: '{path}'"):
        replace_text(path, "a new text")
    assert [one.name for one in tmp_path.iterdir()] == ["status.yaml"]
    assert path.read_text() == "old"
