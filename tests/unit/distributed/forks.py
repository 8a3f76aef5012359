"""A real fork server of a program that imports nothing, and its clients."""

import contextlib
import os
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

from quantuner.distributed import forking

SECONDS = 60
"""Never reached by a test that passes."""
PROGRAM = """
import atexit, json, os, random, signal, subprocess, sys, tempfile

tempfile.gettempdir()  # as torch does when it is imported

def main():
    name, *arguments = sys.argv[1:]
    return globals()[name](*arguments)

def tell():
    umask = os.umask(0)
    told = {"arguments": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ), "path": sys.path[0]}
    told |= {"umask": umask, "processors": sorted(os.sched_getaffinity(0)), "random": random.random()}
    told |= {"files": sorted(map(int, os.listdir("/proc/self/fd"))), "input": sys.stdin.read()}
    told["main"] = sys.modules["__main__"].__name__
    print(json.dumps(told))
    print("said to stderr", file=sys.stderr)
    return 0

def end(code):
    atexit.register(print, "at exit")
    sys.stdout.write("not flushed, ")
    return int(code)

def fail():
    raise ValueError("the rank fails")

def leave():
    sys.exit("the rank leaves")

def die(number):
    if int(number) != signal.SIGKILL:
        signal.signal(int(number), signal.SIG_DFL)
    os.kill(os.getpid(), int(number))

def leave_group():
    helper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, process_group=0)
    os.setpgid(0, helper.pid)
    print(os.getpid(), flush=True)
    signal.pause()

def leave_a_helper(how):
    helper = subprocess.Popen([sys.executable, "-c", "import signal; print(flush=True); signal.pause()"], stdout=-1)
    helper.stdout.readline()
    print(helper.pid, flush=True)
    sys.stdin.readline()
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(0)

def temporary():
    print(tempfile.gettempdir())

def wait():
    print(os.getpid(), flush=True)
    signal.pause()

def heed(*numbers):
    signal.pthread_sigmask(signal.SIG_BLOCK, map(int, numbers))
    print(os.getpid(), flush=True)
    for _ in numbers:
        print(int(signal.sigwait(map(int, numbers))), flush=True)
    return 0
"""


class Forks:
    """A server in `folder`; its program is imported by ranks that the server does not fork, too."""

    def __init__(self, folder: Path, program: str = PROGRAM) -> None:
        self.folder, self._started = folder, contextlib.ExitStack()
        (folder / "program.py").write_text(program)
        self.environment = {**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}

    def serve(self) -> subprocess.Popen[bytes]:
        server = forking.start(self.folder, self.environment, "program")
        self._started.enter_context(server)
        self._started.callback(server.kill)
        return server

    def ask(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """A client, in the folder, with all its streams."""
        client = subprocess.Popen(
            forking.client(self.folder, "program", *arguments),
            env=self.environment | variables,
            cwd=self.folder,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._started.enter_context(client)
        self._started.callback(client.kill)
        return client

    def close(self) -> None:
        self._started.close()


def ended(client: subprocess.Popen[str], given: str = "") -> tuple[int, str, str]:
    """Exit code, output, errors."""
    said, errors = client.communicate(given, timeout=SECONDS)
    return client.returncode, said, errors


def line(client: subprocess.Popen[str]) -> str:
    assert client.stdout is not None
    return client.stdout.readline().strip()


@contextlib.contextmanager
def ending(process: int) -> Iterator[None]:
    """Waits at the end for a process that is there at the beginning."""
    file = os.pidfd_open(process)
    try:
        yield
        assert select.select([file], [], [], SECONDS)[0], f"process {process} is still there"
    finally:
        os.close(file)


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def children(process: int) -> list[int]:
    """Those that its first thread has started; a fork server has no other."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
