"""The search's record on disk: the journal, one writer, and the best configuration beside it."""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from quantuner.api.errors import JournalError
from quantuner.api.journal import History, Record, decode, encode

JOURNAL_FILE = "journal.jsonl"
BEST_FILE = "best.yaml"


class JournalFolder:
    """A folder with `journal.jsonl` and `best.yaml`.

    Opening it reads the journal: a torn last line, whose writer died inside it and which therefore was never
    told, is cut off; any other damage raises `JournalError`, and so does a second writer.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.journal = folder / JOURNAL_FILE
        self.best = folder / BEST_FILE
        self._file = self.journal.open("a", encoding="utf-8")
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
            raise JournalError(
                f"another search writes {self.journal}; wait for it, end it, or name another workspace"
            ) from error

    def append(self, record: Record) -> None:
        """Makes the record durable. Raises `JournalError`, and writes nothing, where it contradicts the history."""
        self.history.apply(record)
        self._file.write(encode(record) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def describe_best(self, description: Mapping[str, Any]) -> None:
        replace_text(self.best, yaml.safe_dump(dict(description), sort_keys=False))

    def close(self) -> None:
        self._file.close()


def replace_text(path: Path, text: str) -> None:
    """Writes the file whole: a reader sees the old text or the new one."""
    staging = path.with_name(f".{path.name}.partial")
    staging.write_text(text, encoding="utf-8")
    staging.replace(path)


def read_lines(path: Path) -> list[str]:
    """The whole lines of a journal that somebody else may be writing."""
    if not path.exists():
        return []
    # Split at newlines alone: a line may hold other characters that str.splitlines takes for an end.
    return _whole(path.read_bytes()).decode(errors="replace").split("\n")[:-1]


def _whole(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


def read_history(path: Path) -> History:
    """What a journal that somebody else may be writing says. Raises `JournalError` with its path."""
    try:
        return History.replay(read_lines(path))
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
