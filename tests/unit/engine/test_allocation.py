"""Memory is kept within a search and given back after it. Each in a process of its own, whose allocation it is."""

import subprocess
import sys
from pathlib import Path

import pytest

import quantuner
from quantuner.engine.allocation import _of_glibc, keeping_freed_memory

of_glibc = pytest.mark.skipif(_of_glibc("mallopt") is None, reason="only glibc is told how to allocate")

OPERATOR = str(Path(quantuner.__file__).parents[1])
FAULTS = """
import contextlib, resource, torch
from quantuner.engine.allocation import freed_memory_kept

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def of_ten_tensors():
    before = pages()
    for _ in range(10):
        torch.ones(12 * 2**20)  # 48 MiB, more than glibc's threshold ever comes to
    return pages() - before
"""


def _printed(code: str, **environment: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS + code],
        env={"PYTHONPATH": OPERATOR, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(word) for word in done.stdout.split()]


@of_glibc
def test_pages_are_cleared_once_while_it_lasts_and_given_back_then() -> None:
    within, held, after = _printed("""
with freed_memory_kept():
    with freed_memory_kept():
        of_ten_tensors()
    within = of_ten_tensors()
    held = int(open("/proc/self/statm").read().split()[1])
print(within, held, int(open("/proc/self/statm").read().split()[1]))
""")
    (without,) = _printed("print(of_ten_tensors())")
    pages_of_one = 48 * 2**20 // 4096
    assert without > 5 * pages_of_one  # huge pages count as one each; most systems have none here
    assert within < pages_of_one
    assert held - after > pages_of_one // 2


@of_glibc
def test_who_sets_an_allocation_variable_keeps_it() -> None:
    (within,) = _printed(
        "with freed_memory_kept(): print(of_ten_tensors())",
        MALLOC_MMAP_THRESHOLD_=str(2**20),
    )
    assert within > 5 * 48 * 2**20 // 4096


def test_a_process_is_told_to_keep_freed_memory_unless_its_environment_tells_it_how_to_allocate() -> None:
    environment = keeping_freed_memory({"LANG": "C"})
    learnt = 32 * 2**20
    assert environment == {
        "LANG": "C",
        "MALLOC_TRIM_THRESHOLD_": str(2 * learnt),
        "MALLOC_MMAP_THRESHOLD_": str(learnt),
    }
    chosen = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"}
    assert keeping_freed_memory(chosen) == chosen


GARBAGE = """
import gc, weakref
from quantuner.engine.allocation import objects_set_aside

class Cycle:  # which only Python's search for garbage finds
    def __init__(self):
        self.itself = self

before = gc.get_freeze_count()
with objects_set_aside():
    aside = gc.get_freeze_count()
    made = weakref.ref(Cycle())
    gc.collect()
    with objects_set_aside():
        pass
    print(before, aside, int(made() is None), gc.get_freeze_count())
print(gc.get_freeze_count())
"""


def test_garbage_is_looked_for_among_new_objects_alone() -> None:
    before, aside, is_collected, still, after = _printed(GARBAGE)
    assert (before, is_collected, after) == (0, 1, 0)
    assert still > aside // 2 > 0  # what is set aside may end by itself, and is not taken up before the block ends
