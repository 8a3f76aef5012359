"""The search's record on disk: the journal, one writer, and the best configuration beside it."""

import contextlib
import fcntl
import io
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from quantuner.api.conditions import Failure
from quantuner.api.errors import JournalError, SearchError
from quantuner.api.journal import History, Record, decode, encode

JOURNAL_FILE = "journal.jsonl"
BEST_FILE = "best.yaml"
LOCK_FILE = ".lock"
LOCK_SECONDS = 0.05  # between two looks whether a journal's writer is gone


class JournalFolder:
    """A folder with `journal.jsonl` and `best.yaml`.

    Opening it reads the journal: a torn last line, whose writer died inside it and which therefore was never
    told, is cut off; any other damage raises `JournalError`, and so does a second writer.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.journal = folder / JOURNAL_FILE
        self.best = folder / BEST_FILE
        self._file = self.journal.open("ab", buffering=0)  # what a full disk refused is not written later
        try:
            self._lock()
            self.history = History.replay(_repair(self.journal))
        except JournalError:
            self._file.close()
            raise

    def _lock(self) -> None:
        """Until the file is closed or the process ends, however it ends."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JournalError(f"another search writes {self.journal}; {_remedy(self.journal)}") from error

    def append(self, record: Record) -> None:
        """Makes the record durable.

        Raises `JournalError` where it contradicts the history, `SearchError` where the disk does not take it, and
        what `encode` raises. None of these leaves any of it behind.
        """
        with uninterrupted():
            line = f"{encode(record)}\n".encode()
            self.history.apply(record)
            size = os.fstat(self._file.fileno()).st_size
            try:
                _write(self._file, line)
            except OSError as error:
                with contextlib.suppress(OSError):  # the next writer cuts it off
                    self._file.truncate(size)
                self.history = History.replay(read_lines(self.journal))
                raise _not_written(self.journal, error) from error

    def describe_best(self, description: Mapping[str, Any]) -> None:
        """Keeps it in the file beside the journal. Raises `SearchError` where the disk does not take it."""
        try:
            replace_text(self.best, yaml.safe_dump(dict(description), sort_keys=False))
        except OSError as error:
            raise _not_written(self.best, error) from error

    def reopen(self) -> None:
        """Takes the end of a finished search off, so that it may go on; it is kept with it as `journal.N.jsonl`.

        A reader sees the old journal or the new one. Raises `SearchError` where the disk does not take it, and leaves
        nothing behind then.
        """
        lines = read_lines(self.journal)[:-1]
        staging = self.journal.with_name(f".{JOURNAL_FILE}.partial")
        kept = self.journal.with_name(f"journal.{free_number(self.journal.parent)}.jsonl")
        try:
            with contextlib.ExitStack() as undone:
                undone.callback(kept.unlink, missing_ok=True)
                undone.callback(staging.unlink, missing_ok=True)
                undone.enter_context(_staged(staging, self.journal.read_bytes())).close()
                staging.replace(kept)
                file = undone.enter_context(_staged(staging, "".join(f"{line}\n" for line in lines).encode()))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                staging.replace(self.journal)
                undone.pop_all()
        except OSError as error:
            raise _not_written(self.journal, error) from error
        self._file.close()
        self._file, self.history = file, History.replay(lines)

    def close(self) -> None:
        self._file.close()


def _write(file: io.FileIO, data: bytes) -> None:
    while data:  # a disk that is nearly full takes a part
        data = data[file.write(data) :]
    os.fsync(file.fileno())


def _staged(path: Path, data: bytes) -> io.FileIO:
    """A new file with this, durable; to be appended to."""
    path.unlink(missing_ok=True)  # of one that was killed here
    file = path.open("ab", buffering=0)
    try:
        _write(file, data)
    except OSError:
        file.close()
        raise
    return file


def free_number(folder: Path) -> int:
    """Of the next journal that is kept beside the present one."""
    return next(number for number in itertools.count(1) if not (folder / f"journal.{number}.jsonl").exists())


def _not_written(path: Path, error: OSError) -> SearchError:
    return SearchError(
        Failure.WRITE_FAILED,
        f"{path} cannot be written: {error.strerror}; give its disk room and start the search again: it goes on after "
        "the last trial told",
    )


@contextlib.contextmanager
def sole_search(folder: Path) -> Iterator[None]:
    """Nobody else searches in the folder inside of the block; between launches, too, when no rank holds the journal.

    Raises `JournalError` where somebody does, or where ranks of one whose supervisor was killed still run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("w") as file:
        taken = None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not await_writer(folder, 0):
                taken = folder / JOURNAL_FILE
        except BlockingIOError:
            taken = folder / LOCK_FILE
        if taken is not None:
            raise JournalError(f"another search runs in {folder}; {_remedy(taken)}")
        yield


def _remedy(taken: Path) -> str:
    """What to do about whoever holds the lock of a file."""
    process = _holder(taken)
    named = f" (kill {process})" if process is not None else ""
    return f"wait for it, end it{named}, or name another workspace"


def _holder(path: Path) -> int | None:
    """The process that has locked a file; None where the system does not tell, as in another container."""
    try:
        inode = path.stat().st_ino
        locks = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
    except OSError:
        return None
    # The device before the inode is not compared: on layered file systems it is another one than stat's. So where
    # several files have that inode, none is named.
    found = {int(f[4]) for f in locks if f[1:4:2] == ["FLOCK", "WRITE"] and f[5].split(":")[-1] == str(inode)}
    return found.pop() if len(found) == 1 and min(found) > 0 else None


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Puts off a SIGTERM until the block is left: what is being told when a pod is drained is told whole.

    Outside of it a rank ends at once, with nothing to lose. Python lets the main thread alone decide, so that in
    another one nothing is put off.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if handler is None or threading.current_thread() is not threading.main_thread():  # None: not Python's
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        if came:
            signal.raise_signal(signal.SIGTERM)


def await_writer(folder: Path, seconds: float) -> bool:
    """Waits until no process writes the folder's journal; False where one still does after so many seconds.

    mpirun is gone before the ranks that it has killed are: what rank 0 is telling then is told in that time.
    """
    deadline = time.monotonic() + seconds
    path = folder / JOURNAL_FILE
    while path.exists():
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return False
        time.sleep(LOCK_SECONDS)
    return True


def replace_text(path: Path, text: str) -> None:
    """Writes the file whole: a reader sees the old text or the new one.

    Raises `OSError` with the file's path where the disk does not take it, and leaves nothing behind then.
    """
    staging = path.with_name(f".{path.name}.partial")
    try:
        staging.write_text(text, encoding="utf-8")
        staging.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            staging.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_lines(path: Path) -> list[str]:
    """The whole lines of a journal that somebody else may be writing."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    # Split at newlines alone: a line may hold other characters that str.splitlines takes for an end.
    return _whole(data).decode(errors="replace").split("\n")[:-1]


def _whole(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


def read_history(path: Path) -> History:
    """What a journal that somebody else may be writing says. Raises `JournalError` with its path."""
    with _named(path):
        return History.replay(read_lines(path))


def read_records(path: Path) -> list[Record]:
    """The records of a journal that somebody else may be writing. Raises `JournalError` with its path."""
    with _named(path):
        return [decode(line) for line in read_lines(path)]


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except JournalError as error:
        raise JournalError(f"{path}: {error}; move the file away to start anew") from error


def _repair(path: Path) -> list[str]:
    data = path.read_bytes() if path.exists() else b""
    whole = _whole(data)
    lines = whole.split(b"\n")[:-1]
    for number, line in enumerate(lines, 1):
        try:
            decode(line.decode())
        except (JournalError, UnicodeDecodeError) as error:
            raise JournalError(f"{path}, line {number}: {error}") from error
    if len(data) > len(whole):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return [line.decode() for line in lines]
