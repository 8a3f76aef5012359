"""An event that a handler sets in the middle of its own wait."""

import subprocess
import sys
import threading

from quantuner.distributed.told import Told


def test_it_is_waited_for_until_it_is_set_or_the_time_is_over() -> None:
    told = Told()
    assert not told.wait(0)
    assert not told.wait(0.01)
    setting = threading.Timer(0.01, told.set)
    setting.start()
    assert told.wait()
    assert told.wait(0)
    assert told.is_set()
    setting.join()


SET_IN_THE_MIDDLE = """
import random, signal, time
from quantuner.distributed.told import Told
signal.signal(signal.SIGALRM, lambda *_: told.set())
random.seed(0)
while time.process_time() < 1.5:
    told = Told()
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 6e-5))
    told.wait(3e-5)
"""
"""With `threading.Event` it never ends, nor with `queue.SimpleQueue`."""


def test_a_handler_may_set_it_wherever_it_interrupts() -> None:
    subprocess.run([sys.executable, "-c", SET_IN_THE_MIDDLE], check=True, timeout=60)
