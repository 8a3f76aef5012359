"""The trial that a search in series is at: whoever outlives its process knows which one it ended in."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from quantuner.distributed.losses import Losses

logger = logging.getLogger(__name__)

BEGUN_FILE = ".begun"
WIDTH = 12
"""Characters of the file, which is always written whole."""


class Begun:
    """A trial's number in a folder's file while it is evaluated, blanks between trials; or nothing, without a folder.

    Written at once and not synced: what the kernel has outlives the process, and that is all that it is for.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None

    @contextlib.contextmanager
    def trial(self, index: int) -> Iterator[None]:
        """Inside of the block the trial is evaluated; an error that leaves it leaves nothing behind."""
        self._write(str(index))
        try:
            yield
        finally:
            self._write("")

    def _write(self, text: str) -> None:
        if self._folder is None:
            return
        try:
            if self._file is None:
                self._file = (self._folder / BEGUN_FILE).open("wb", buffering=0)
            os.pwrite(self._file.fileno(), text.ljust(WIDTH).encode(), 0)
        except OSError as error:
            logger.warning("a trial that ends this process will not be known as such: %s", error)
            self._folder = None

    def close(self) -> None:
        """No trial follows. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None


def settle(folder: Path, *, blame: bool) -> None:
    """Forgets the trial that the folder's process was at when it ended, if any; `blame` counts it as lost with it."""
    path = folder / BEGUN_FILE
    index = _read(path)
    if index is not None and blame:
        losses = Losses(folder)
        losses.record(index, losses.known.get(index, 0) + 1)
        logger.warning("the search in series was lost in trial %d", index)
    path.unlink(missing_ok=True)


def _read(path: Path) -> int | None:
    """None between trials, and where nobody has been at one."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
