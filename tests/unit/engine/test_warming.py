"""In processes of their own, since this one has captured before."""

import os
import subprocess
import sys

WARM = """
import os, random, numpy, torch
from quantuner.engine.warming import warm
torch.set_num_threads(2)
def states():
    return random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist(), torch.get_num_threads()
def threads():
    return len(os.listdir("/proc/self/task"))
before, running = states(), threads()
warm()
assert states() == before
assert threads() == running
assert not torch.cuda.is_initialized()
with open(f"/proc/self/task/{os.getpid()}/children") as children:
    assert children.read() == ""
"""
FORK = """
if os.fork() == 0:
    torch.nn.Conv2d(32, 32, 3)(torch.zeros(32, 32, 64, 64))
    os._exit(0 if threads() == 2 else 1)
assert os.wait()[1] == 0
"""


def run(program: str) -> None:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_warming_leaves_the_process_as_it_was() -> None:
    run(WARM)


def test_a_fork_of_a_warm_process_computes_on_threads_of_its_own() -> None:
    run(WARM + FORK)
