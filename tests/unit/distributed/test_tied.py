"""A module in a process that ends with its parent."""

import os
import subprocess
import sys
from pathlib import Path

TIED = [sys.executable, "-m", "quantuner.distributed.tied"]
PROGRAM = """
import os, sys, time
print(os.getpid(), __name__, *sys.argv[1:], flush=True)
if sys.argv[1] == "wait":
    time.sleep(600)
"""
PARENT = """
import os, subprocess, sys
subprocess.Popen([*sys.argv[1:4], str(os.getpid()), *sys.argv[4:]]).wait()
"""


def environment(folder: Path) -> dict[str, str]:
    (folder / "program.py").write_text(PROGRAM)
    return {**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}


def test_a_module_is_main_and_has_its_arguments(tmp_path: Path) -> None:
    command = [*TIED, str(os.getpid()), "program", "--serial"]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[1:] == ["__main__", "--serial"]


def test_it_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, *TIED, "program", "wait"]
    with subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().split()[1:] == ["__main__", "wait"]
        parent.kill()
        assert parent.stdout.read() == "", "at the end of the file, when nobody has it open"


def test_it_does_not_outlive_a_parent_that_has_ended_before(tmp_path: Path) -> None:
    done = subprocess.run([*TIED, "1", "program", "wait"], env=environment(tmp_path), capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (-9, b"")
