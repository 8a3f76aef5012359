"""A program that loads a saved model with torch alone, and computes with it what the process that began it asks for.

It is run by its path, so that nothing of Quantuner is imported; of one file beside it, which knows torch alone, it
takes how to read quickly. Its standard output is not used; it ends with the connection.
"""

import gc
import logging
import pickle
import runpy
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PREPARE = "prepare"
"""Asks for the imports that come before a model is loaded. It is not answered."""


def main(descriptor: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both: the other one closes the connection
    logging.disable(logging.WARNING)
    gc.disable()  # what is imported stays: to look through it for garbage again and again took 1.3 of 3.2 seconds
    import torch  # a second, in which the other process does its own work

    with Connection(descriptor) as asking, torch.no_grad():
        model: Any = None
        while (request := _received(asking)) is not None:
            if request == PREPARE:
                _prepare()
                continue
            try:
                answer: Any = None
                if isinstance(request, dict):
                    model = _loaded(**request)
                else:
                    answer = model(*request)
                said = pickle.dumps((True, answer))
            except Exception as error:  # whatever it is, it is told to who asked
                said = pickle.dumps((False, "".join(traceback.format_exception(error))))
            asking.send_bytes(said)


def _prepare() -> None:
    """Imports what loads a program, and the operators of rounding: a second more."""
    import torch.ao.quantization.fx._decomposed
    import torch.export.pt2_archive._package  # noqa: F401 (both are imported for what they register)


def _received(asking: Connection) -> Any:
    """What is asked for next; None where the other process has ended, or wants no more."""
    try:
        return pickle.loads(asking.recv_bytes())  # noqa: S301 (of the process that began this one)
    except (EOFError, OSError):
        return None


def _loaded(file: str, threads: int, precision: str) -> Any:
    _prepare()
    import torch

    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    quickly = runpy.run_path(str(Path(__file__).with_name("serialization.py")))["quickly"]
    try:
        with quickly():
            return torch.export.load(file).module()
    finally:
        gc.freeze()
        gc.enable()


if __name__ == "__main__":
    main(int(sys.argv[1]))
