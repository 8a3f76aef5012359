"""Calibrated ranges on disk: a search that is resumed where an earlier one left them does not calibrate again.

What the ranges of a graph depend on is in the entry's name, or is compared before they are used. The data's bytes are:
reading the calibration samples once more costs a small part of running the model on them, and nothing less would
notice that a file of theirs has changed.
"""

import contextlib
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule
from torch.utils._pytree import tree_flatten

from quantuner.engine.calibrate import Calibration, Range, Ranges
from quantuner.engine.capture import Captured
from quantuner.engine.writing import file_for_torch

logger = logging.getLogger(__name__)

RANGES_FILE = "ranges.pt"
FORMAT = 2  # of the file, and of what calibration collects
KEPT = 9  # graphs whose ranges a file holds: the model and the variants that an engine keeps of it


class InputsDigest:
    """Digest of batches of inputs: their bytes, shapes, types and order."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._whole = True

    def update(self, inputs: tuple[Any, ...]) -> None:
        """Takes the next batch; tensors may be inside dicts and tuples."""
        leaves, shape = tree_flatten(inputs)
        self._sha.update(str(shape).encode())
        for leaf in leaves:
            if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided:
                self._sha.update(f"{tuple(leaf.shape)} {leaf.dtype}".encode())
                self._sha.update(tensor_bytes(leaf))
            elif leaf is None or isinstance(leaf, (bool, int, float, str)):
                self._sha.update(repr(leaf).encode())
            else:
                self._whole = False

    @property
    def value(self) -> str | None:
        """16 hex digits; None where an input is of a kind whose content cannot be read."""
        return self._sha.hexdigest()[:16] if self._whole else None


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """All bytes of a dense tensor, wherever it is; not copied where they lie in order on the CPU."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().data


def calibrated_digest(captured: Captured, sizes: Sequence[int], conditions: Sequence[object]) -> str:
    """Identifies what is calibrated, and how: graph, weights and constants, sizes, and `conditions` of the machine.

    `Captured.digest` would not do: two models may have the same ops and weights, and another function between them.
    """
    sha = hashlib.sha256(repr((FORMAT, captured.digest, tuple(sizes), *conditions)).encode())
    for name, module in captured.graph.named_modules():
        if isinstance(module, GraphModule):
            sha.update(f"{name} {module.code}".encode())
        for key, value in sorted(vars(module).items()):
            if isinstance(value, torch.Tensor):  # constants that are no buffers
                sha.update(f"{name} {key}".encode())
                sha.update(tensor_bytes(value))
    for name, tensor in [*captured.graph.named_parameters(), *captured.graph.named_buffers()]:
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(tensor_bytes(tensor))
    return sha.hexdigest()[:16]


class KeptRanges:
    """The ranges in a file, and in those of searches that this one continues. Written by rank 0 alone.

    A file that cannot be read counts as empty and one that cannot be written is left: ranges can be made again.
    """

    def __init__(self, path: Path | None = None, others: Sequence[Path] = ()) -> None:
        """`path` is read and written, `others` are read."""
        self.path = path
        self.others = tuple(others)

    @property
    def anywhere(self) -> bool:
        """Whether there is any file to look in or to write."""
        return self.path is not None or bool(self.others)

    def find(self, calibrated: str) -> tuple[str, Calibration] | None:
        """(digest of the inputs, ranges) of what `calibrated_digest` identifies; None where no file has them."""
        for path in (self.path, *self.others):
            entry = _entries(path).get(calibrated) if path is not None else None
            if entry is not None:
                return entry
        return None

    def keep(self, calibrated: str, inputs: str, calibration: Calibration) -> None:
        """Writes the file whole: a reader sees the old one or the new one."""
        if self.path is None:
            return
        entries = {**_entries(self.path), calibrated: (inputs, calibration)}
        latest = dict([*entries.items()][-KEPT:])
        staging = self.path.with_name(f".{self.path.name}.partial")
        try:
            with file_for_torch(staging) as file:
                torch.save({"format": FORMAT, "entries": {k: _plain(*entry) for k, entry in latest.items()}}, file)
            staging.replace(self.path)
        except OSError as error:
            logger.warning("the ranges are not kept, a resumed search calibrates again: %s", error)
        finally:  # a full disk would stay full
            with contextlib.suppress(OSError):
                staging.unlink(missing_ok=True)


def _plain(inputs: str, calibration: Calibration) -> dict[str, Any]:
    ranges = {
        size: {name: (seen.minimum, seen.maximum, seen.histogram) for name, seen in ranges.items()}
        for size, ranges in calibration.items()
    }
    return {"inputs": inputs, "ranges": ranges}


def _entries(path: Path) -> dict[str, tuple[str, Calibration]]:
    if not path.is_file():
        return {}
    try:
        body = torch.load(path, weights_only=True)
        if body["format"] != FORMAT:
            return {}
        return {key: (entry["inputs"], _calibration(entry["ranges"])) for key, entry in body["entries"].items()}
    except Exception as error:  # whatever is wrong with it, calibrating again puts it right
        logger.warning("%s cannot be read and is left out: %s", path, error)
        return {}


def _calibration(ranges: dict[int, dict[str, tuple[torch.Tensor, ...]]]) -> Calibration:
    def range_(parts: tuple[torch.Tensor, ...]) -> Range:
        minimum, maximum, histogram = parts
        return Range(minimum, maximum, histogram)

    def all_of(one: dict[str, tuple[torch.Tensor, ...]]) -> Ranges:
        return {name: range_(parts) for name, parts in one.items()}

    return {size: all_of(one) for size, one in ranges.items()}
