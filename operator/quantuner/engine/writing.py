"""Files that torch writes. Its zip writer ends the process (SIGABRT) where a write fails, as on a full disk: it throws
while it is destroyed. So it is told of no failure, and whoever asked for the file is.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO


@contextlib.contextmanager
def file_for_torch(path: Path) -> Iterator[BinaryIO]:
    """A new file. Raises `OSError` with its path at the block's end where anything could not be written."""
    file = path.open("wb")
    sink = _Sink(file)
    try:
        yield sink  # type: ignore[misc]  # all that torch asks of one
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        raise
    try:
        file.close()
        if sink.error is not None:
            raise sink.error
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


class _Sink(io.RawIOBase):
    """Takes everything; what follows a failure is dropped."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Does nothing: torch writes front to back, and then seeks to the start for who reads on."""
        return offset

    def write(self, data: Any, /) -> int:
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes
