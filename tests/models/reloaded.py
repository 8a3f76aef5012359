"""Loads saved models in a process that did nothing else, and prints what each scores: `NAME FOLDER…`."""

import sys
from pathlib import Path

import torch

from benchmarks.real_models import REAL_MODELS
from quantuner.quantization import load


def main(name: str, folders: list[str]) -> None:
    torch.set_num_threads(1)
    judged = REAL_MODELS[name]().accuracy
    for folder in folders:
        with torch.no_grad():
            sys.stdout.write(f"{judged(load(Path(folder))).hex()}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
