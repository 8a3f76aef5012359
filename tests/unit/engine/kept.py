"""Tells kept ranges from those that a search makes itself."""

from pathlib import Path

import torch

from quantuner.engine.ranges import RANGES_FILE


def mark_ranges(folder: Path) -> None:
    """Changes the kept ranges, so that it shows where they are used."""
    body = torch.load(folder / RANGES_FILE, weights_only=True)
    for entry in body["entries"].values():
        for ranges in entry["ranges"].values():
            for name, (low, high, histogram) in ranges.items():
                ranges[name] = (low, high + 1000, histogram)
    torch.save(body, folder / RANGES_FILE)
