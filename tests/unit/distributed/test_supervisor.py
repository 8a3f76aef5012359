"""Ranks are started until the journal has ended, whatever their exit codes say. The ranks are small real programs."""

import dataclasses
import io
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from quantuner.api.conditions import Failure
from quantuner.api.errors import JournalError, SearchError
from quantuner.api.journal import Failed, Finished, History, Outcome, Record, encode
from quantuner.distributed import processes
from quantuner.distributed.begun import BEGUN_FILE
from quantuner.distributed.journal import JOURNAL_FILE, read_lines
from quantuner.distributed.losses import Losses
from quantuner.distributed.processes import TERMINATE_SECONDS, Launch, Processes
from quantuner.distributed.supervisor import FRUITLESS_LAUNCHES, TERMINATED, Supervisor
from quantuner.distributed.told import Stop
from tests.unit.records import TIME, launched, told

END = Finished(outcome=Outcome.EXHAUSTED, best=1, accuracy=0.5, artifact="model", time=TIME)


def python(program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Launch:
    return Launch(
        [sys.executable, "-I", "-S", "-c", f"import os, sys, time\n{program}", *arguments],
        {} if environment is None else environment,
    )


def telling(folder: Path, *records: Record, code: int = 0, says: str = "") -> Launch:
    """Ranks that tell these records and end with this exit code."""
    lines = "".join(f"{encode(record)}\n" for record in records)
    program = "open(sys.argv[1], 'a').write(sys.argv[2]); print(sys.argv[3]); sys.exit(int(sys.argv[4]))"
    return python(program, str(folder / JOURNAL_FILE), lines, says, str(code))


class Launches:
    """Gives one launch after the other and counts them; the last is repeated."""

    def __init__(self, *launches: Launch) -> None:
        self.launches = launches
        self.count = 0

    def __call__(self, stop: Stop) -> Launch:
        launch = self.launches[min(self.count, len(self.launches) - 1)]
        self.count += 1
        return launch


def history(folder: Path) -> History:
    return History.replay(read_lines(folder / JOURNAL_FILE))


def supervise(folder: Path, *launches: Launch) -> tuple[int, int]:
    """Exit code, and how often ranks were started."""
    asked = Launches(*launches)
    return Supervisor(folder, asked, relay=False, pause=0).run(), asked.count


@pytest.mark.parametrize("code", [0, 1, 137])
def test_a_journal_that_has_ended_is_success_whatever_the_exit_code(tmp_path: Path, code: int) -> None:
    assert supervise(tmp_path, telling(tmp_path, launched(), told(0, 0.9), END, code=code)) == (0, 1)


def test_a_search_that_failed_by_its_journal_is_not_started_again(tmp_path: Path) -> None:
    failed = Failed(reason="TaskRaised", message="it raised", time=TIME)
    assert supervise(tmp_path, telling(tmp_path, launched(), failed, code=1)) == (0, 1)


def test_an_ended_journal_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_FILE).write_text(encode(END) + "\n")
    assert supervise(tmp_path, python("sys.exit('never')")) == (0, 0)


def test_exit_code_0_without_an_end_is_a_loss_and_the_search_resumes(tmp_path: Path) -> None:
    lost = telling(tmp_path, launched(), told(0, 0.9), told(1, 0.5), code=0)
    assert supervise(tmp_path, lost, telling(tmp_path, launched(), told(2, 0.6), END)) == (0, 2)
    assert [trial.index for trial in history(tmp_path).trials] == [0, 1, 2]


def test_a_crash_is_resumed(tmp_path: Path) -> None:
    crash = python("os.kill(os.getpid(), 9)")
    whole = telling(tmp_path, launched(), told(0, 0.9), END)
    assert supervise(tmp_path, crash, crash, whole) == (0, FRUITLESS_LAUNCHES)


def test_what_mpirun_left_behind_is_not_waited_for(tmp_path: Path) -> None:
    """It holds the pipe of the ranks' output, and would tell here that it was left alone for seconds."""
    program = "os.fork() and os._exit(1)\ntime.sleep(8)\nopen(sys.argv[1], 'w')"
    left = python(program, str(tmp_path / "was waited for"))
    assert supervise(tmp_path, left, telling(tmp_path, launched(), told(0, 0.9), END)) == (0, 2)
    assert not (tmp_path / "was waited for").exists()


def test_an_mpirun_that_does_not_end_after_rank_0_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Open MPI's does not where a rank is stopped beside two that live."""
    monkeypatch.setattr(processes, "TERMINATE_SECONDS", 1.0)
    monkeypatch.setattr(processes, "WATCH_SECONDS", 0.2)
    rank_0 = telling(tmp_path, launched(), told(0, 0.9), END)
    program = "import subprocess; subprocess.run(sys.argv[1:]); time.sleep(1000)"
    assert supervise(tmp_path, python(program, *rank_0.command)) == (0, 1)


def test_launches_without_a_trial_are_given_up(tmp_path: Path) -> None:
    fruitless = telling(tmp_path, launched(), code=3, says="the last words\n")
    assert supervise(tmp_path, fruitless) == (0, FRUITLESS_LAUNCHES)
    end = history(tmp_path).end
    assert isinstance(end, Failed)
    assert end.reason == Failure.RANKS_LOST
    assert end.message.startswith(f"{FRUITLESS_LAUNCHES} launches in a row ended without a trial told (exit code 3)")
    assert "last line: the last words." in end.message


def test_a_disk_that_does_not_even_take_the_end_is_an_error_that_names_the_journal(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL_FILE
    path.write_text(f"{encode(launched())}\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, before[1]))
    try:
        with pytest.raises(SearchError, match=r"journal.jsonl cannot be written: "):
            supervise(tmp_path, telling(tmp_path, code=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == f"{encode(launched())}\n"


def test_every_told_trial_gives_new_patience(tmp_path: Path) -> None:
    """Only launches in a row that tell nothing count."""
    silent = python("sys.exit(1)")
    fruitful = [telling(tmp_path, launched(), told(index, 0.5), code=1) for index in range(2)]
    end = telling(tmp_path, launched(), END)
    order = [silent, silent, fruitful[0], silent, silent, fruitful[1], silent, silent, end]
    assert supervise(tmp_path, *order) == (0, len(order))


ABORT = """Traceback (most recent call last):
ValueError: the real error
--------------------------------------------------------------------------
MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD
  Proc: [[53893,1],1]
  Errorcode: 1

NOTE: invoking MPI_ABORT causes Open MPI to kill all MPI processes.
You may or may not see output from other processes, depending on
exactly when Open MPI kills them.
--------------------------------------------------------------------------
1 more process has sent help message help-mpi-api.txt / mpi-abort
\0
"""


def test_the_last_line_quoted_is_the_ranks_and_not_what_mpi_says_of_their_end(tmp_path: Path) -> None:
    assert (
        supervise(tmp_path, python("sys.stderr.write(sys.argv[1].replace('0x', chr(0)))", ABORT.replace("\0", "0x")))[0]
        == 0
    )
    end = history(tmp_path).end
    assert isinstance(end, Failed)
    assert "last line: ValueError: the real error." in end.message
    assert end.traceback.splitlines() == ABORT.splitlines()[:2]


def test_output_without_bounds_leaves_a_record_within_them(tmp_path: Path) -> None:
    assert supervise(tmp_path, python("print('x' * 10**6); print(b'\\xff\\n')"))[0] == 0
    end = history(tmp_path).end
    assert isinstance(end, Failed)
    assert len(encode(end)) < 8000


def test_a_torn_line_of_dead_ranks_does_not_stop_the_next_ones(tmp_path: Path) -> None:
    torn = python("open(sys.argv[1], 'a').write(sys.argv[2])", str(tmp_path / JOURNAL_FILE), '{"v":1,"op":"tri')
    assert supervise(tmp_path, torn)[0] == 0
    assert isinstance(history(tmp_path).end, Failed)


def test_a_damaged_journal_is_not_searched_on(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_FILE).write_text("damaged\n")
    with pytest.raises(JournalError, match="must be a JSON object"):
        supervise(tmp_path, python("sys.exit('never')"))


def test_ranks_get_the_launchs_environment_on_top_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "1")
    line = encode(END)
    program = "assert os.environ['OURS'] == '1'; open(os.environ['FILE'], 'a').write(sys.argv[1])"
    launch = python(program, f"{line}\n", environment={"FILE": str(tmp_path / JOURNAL_FILE)})
    assert supervise(tmp_path, launch) == (0, 1)


def test_the_ranks_output_is_passed_on_where_asked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for relay in (True, False):
        folder = tmp_path / str(relay)
        folder.mkdir()
        Supervisor(folder, Launches(telling(folder, END, says=f"relay {relay}")), relay=relay).run()
    err = capfd.readouterr().err
    assert "relay True" in err
    assert "relay False" not in err


class Full(io.StringIO):
    """A log that takes nothing."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def closed() -> io.StringIO:
    log = io.StringIO()
    log.close()
    return log


@pytest.mark.parametrize("log", [Full(), closed(), None], ids=["broken", "closed", "none"])
def test_a_log_that_takes_nothing_does_not_end_the_search(
    tmp_path: Path, log: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "for i in range(20000): print('line', i)\nopen(sys.argv[1], 'w').write('done')"
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", log)
        ended = Processes(python(program, str(tmp_path / "done")), tmp_path, relay=True).wait()
    assert (tmp_path / "done").read_text() == "done"
    assert ended.tail[-1] == "line 19999"


def test_nobody_waits_for_a_process_that_left_the_ranks_and_holds_their_output(tmp_path: Path) -> None:
    seconds = 60
    program = f"import subprocess; child = subprocess.Popen(['sleep', '{seconds}'], start_new_session=True)\n"
    program += "open(sys.argv[1], 'w').write(str(child.pid)); print('the rank is done')"
    began = time.monotonic()
    ended = Processes(python(program, str(tmp_path / "child")), tmp_path, relay=False).wait()
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
    assert time.monotonic() - began < seconds
    assert ended.tail == ["the rank is done"]
    assert "rank-output" not in [thread.name for thread in threading.enumerate()]


def test_what_rank_0_tells_after_mpirun_has_ended_is_waited_for(tmp_path: Path) -> None:
    """mpirun ends before the ranks that it kills do, and leaves some behind."""
    program = """
import fcntl, signal
read, write = os.pipe()
mpirun = os.getpid()
if os.fork():
    os.read(read, 1)
    os._exit(1)
os.close(1), os.close(2)
signal.signal(signal.SIGTERM, lambda *_: None)  # put off, as while a record is told
journal = open(sys.argv[1], "a")
fcntl.flock(journal, fcntl.LOCK_EX)
os.write(write, b"x")
while os.getppid() == mpirun:
    time.sleep(0.01)
journal.write(sys.argv[2])
journal.flush()
"""
    launch = python(program, str(tmp_path / JOURNAL_FILE), f"{encode(END)}\n")
    assert supervise(tmp_path, launch) == (0, 1)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A rank opens it to say that it runs."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def terminating(pipe: Path, number: signal.Signals) -> threading.Thread:
    """Sends this process a signal as soon as a rank has opened the pipe."""

    def send() -> None:
        pipe.read_text()
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_launches_that_tell_nothing_are_further_and_further_apart(tmp_path: Path) -> None:
    fruitless = python("open(sys.argv[1], 'a').write(f'{time.monotonic()} ')", str(tmp_path / "starts"))
    assert Supervisor(tmp_path, Launches(fruitless), relay=False, pause=0.3).run() == 0
    first, second, third = map(float, (tmp_path / "starts").read_text().split())
    assert second - first > 0.3
    assert third - second > 0.6


def test_one_that_pauses_ends_when_it_is_told_to(tmp_path: Path, pipe: Path) -> None:
    def launch(stop: Stop) -> Launch:
        return python("open(sys.argv[1], 'w').write('runs')", str(pipe))

    sender = terminating(pipe, signal.SIGTERM)
    assert Supervisor(tmp_path, launch, relay=False, pause=600).run() == TERMINATED
    sender.join()


# --- a search in series that ends in a trial


def dying(folder: Path, number: int, *records: Record, index: int = 1) -> Launch:
    """A search in series that tells these records, begins a trial and ends there by this signal; 0 leaves by itself."""
    lines = "".join(f"{encode(record)}\n" for record in records)
    program = "open(sys.argv[1], 'a').write(sys.argv[2]); open(sys.argv[3], 'w').write(sys.argv[4])\n"
    program += "os.kill(os.getpid(), int(sys.argv[5])) if int(sys.argv[5]) else os._exit(1)"
    launch = python(program, str(folder / JOURNAL_FILE), lines, str(folder / BEGUN_FILE), str(index), str(number))
    return dataclasses.replace(launch, is_rank=True)


@pytest.mark.parametrize(
    ("number", "known"),
    [(signal.SIGKILL, {1: 2}), (signal.SIGSEGV, {1: 2}), (0, {1: 2}), (signal.SIGTERM, {}), (signal.SIGHUP, {})],
)
def test_a_trial_in_which_the_search_in_series_was_killed_is_blamed(
    tmp_path: Path, number: int, known: dict[int, int]
) -> None:
    death = dying(tmp_path, number, launched())
    end = telling(tmp_path, launched(), told(0, 0.9), END)
    assert supervise(tmp_path, death, death, end) == (0, 3)
    assert Losses(tmp_path).known == known
    assert not (tmp_path / BEGUN_FILE).exists()


def test_launches_that_blame_a_trial_are_not_counted_among_those_that_tell_nothing(tmp_path: Path) -> None:
    silent = python("sys.exit(1)")
    deaths = [dying(tmp_path, signal.SIGKILL, index=index) for index in (1, 1, 2, 2)]
    end = telling(tmp_path, launched(), told(0, 0.9), END)
    assert supervise(tmp_path, silent, silent, *deaths, end) == (0, 7)
    assert Losses(tmp_path).known == {1: 2, 2: 2}


def test_an_mpirun_that_is_killed_has_no_trial_to_blame(tmp_path: Path) -> None:
    death = dataclasses.replace(dying(tmp_path, signal.SIGKILL), is_rank=False)
    assert supervise(tmp_path, death, telling(tmp_path, launched(), told(0, 0.9), END)) == (0, 2)
    assert Losses(tmp_path).known == {}


def test_a_search_that_was_told_to_end_has_no_trial_to_blame(tmp_path: Path, pipe: Path) -> None:
    """It does not heed that, and is killed."""
    program = "import signal; signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), 9))\n"
    program += "open(sys.argv[2], 'w').write('1'); open(sys.argv[1], 'w').write('runs'); time.sleep(600)"
    launch = dataclasses.replace(python(program, str(pipe), str(tmp_path / BEGUN_FILE)), is_rank=True)
    sender = terminating(pipe, signal.SIGTERM)
    assert supervise(tmp_path, launch) == (TERMINATED, 1)
    sender.join()
    assert Losses(tmp_path).known == {}
    assert not (tmp_path / BEGUN_FILE).exists()


def test_what_a_supervisor_that_is_gone_left_blames_nothing(tmp_path: Path) -> None:
    (tmp_path / BEGUN_FILE).write_text("1")
    assert supervise(tmp_path, python("sys.exit(1)"), telling(tmp_path, launched(), told(0, 0.9), END)) == (0, 2)
    assert Losses(tmp_path).known == {}


# --- hosts that are back

BETWEEN_RECORDS = """
import signal
def end(number, frame):
    open(sys.argv[2], 'a').write(sys.argv[3])
    sys.exit(1)
signal.signal(signal.SIGTERM, end)
open(sys.argv[1], 'w').write('runs')
while True:
    signal.pause()
"""
"""Ranks that tell what they are telling when they are told to end."""


def outgrown(pipe: Path, folder: Path, *records: Record) -> Launch:
    """Ranks for which more hosts are back as soon as they run."""
    lines = "".join(f"{encode(record)}\n" for record in records)
    launch = python(BETWEEN_RECORDS, str(pipe), str(folder / JOURNAL_FILE), lines)

    def larger(ended: threading.Event) -> bool:
        return pipe.read_text() == "runs"

    return dataclasses.replace(launch, larger=larger)


def test_ranks_that_could_be_more_tell_what_they_are_telling_and_are_started_anew(tmp_path: Path, pipe: Path) -> None:
    fewer = outgrown(pipe, tmp_path, launched(), told(0, 0.9))
    assert supervise(tmp_path, fewer, telling(tmp_path, launched(), told(1, 0.5), END)) == (0, 2)
    assert [trial.index for trial in history(tmp_path).trials] == [0, 1]


def test_a_launch_that_was_ended_for_a_larger_one_is_no_failure(tmp_path: Path, pipe: Path) -> None:
    silent = python("sys.exit(1)")
    order = [silent, outgrown(pipe, tmp_path), silent, outgrown(pipe, tmp_path), outgrown(pipe, tmp_path)]
    end = telling(tmp_path, launched(), told(0, 0.9), END)
    assert supervise(tmp_path, *order, end) == (0, len(order) + 1)
    assert history(tmp_path).failures == 0


def test_it_does_not_hide_those_that_fail(tmp_path: Path, pipe: Path) -> None:
    silent = python("sys.exit(1)")
    order = [silent, silent, outgrown(pipe, tmp_path), silent]
    assert supervise(tmp_path, *order) == (0, len(order))
    assert isinstance(history(tmp_path).end, Failed)


def test_who_waits_for_hosts_hears_that_the_ranks_have_ended(tmp_path: Path) -> None:
    heard: list[bool] = []

    def larger(ended: threading.Event) -> bool:
        heard.append(ended.wait(TERMINATE_SECONDS))
        return False

    end = telling(tmp_path, launched(), told(0, 0.9), END)
    assert supervise(tmp_path, dataclasses.replace(end, larger=larger)) == (0, 1)
    assert heard == [True]


# --- told to stop


@pytest.fixture
def heeded() -> Iterator[None]:
    """A shell has what runs beside it ignore SIGINT, and so would these tests, run there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_ranks(tmp_path: Path, pipe: Path, number: signal.Signals, heeded: None) -> None:
    program = "open(sys.argv[2], 'w').write(str(os.getpid())); open(sys.argv[1], 'w').write('runs'); time.sleep(600)"
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    sender = terminating(pipe, number)
    assert supervise(tmp_path, python(program, str(pipe), str(tmp_path / "pid"))) == (TERMINATED, 1)
    sender.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert {s: signal.getsignal(s) for s in before} == before
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(TERMINATE_SECONDS / 2)
            assert not thread.is_alive(), f"{thread.name} would keep the launcher from ending"


def test_a_signal_that_was_ignored_before_is_ignored_still(tmp_path: Path, pipe: Path) -> None:
    """As nohup has it."""
    program = "open(sys.argv[1], 'w').write('runs'); time.sleep(0.5); open(sys.argv[2], 'a').write(sys.argv[3])"
    whole = python(program, str(pipe), str(tmp_path / JOURNAL_FILE), f"{encode(END)}\n")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        sender = terminating(pipe, signal.SIGHUP)
        assert supervise(tmp_path, whole) == (0, 1)
        sender.join()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_before_the_start_starts_nothing(tmp_path: Path) -> None:
    def launch(stop: Stop) -> Launch:
        os.kill(os.getpid(), signal.SIGTERM)
        return python("open(sys.argv[1], 'w').write('started')", str(tmp_path / "started"))

    assert Supervisor(tmp_path, launch, relay=False).run() == TERMINATED
    assert not (tmp_path / "started").exists()


def test_a_signal_is_heeded_before_ranks_are_started_and_after_they_have_ended(tmp_path: Path) -> None:
    """As while the journal is restored, and while it is brought to the cluster."""
    before = signal.getsignal(signal.SIGTERM)
    supervisor = Supervisor(tmp_path, Launches(python("raise SystemExit(1)")), relay=False)
    with supervisor.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert supervisor.terminated.is_set()
        assert supervisor.run() == TERMINATED
        os.kill(os.getpid(), signal.SIGTERM)
    assert not (tmp_path / JOURNAL_FILE).exists()
    assert signal.getsignal(signal.SIGTERM) is before


class SignallingEnvironment(Mapping[str, str]):
    """An environment which, read at the last moment before the start, has the signal come at that moment."""

    def __getitem__(self, key: str) -> str:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        os.kill(os.getpid(), signal.SIGTERM)
        return iter(())

    def __len__(self) -> int:
        return 0


def test_a_signal_that_comes_while_ranks_are_being_started_ends_them(tmp_path: Path) -> None:
    forever = python("time.sleep(600)", environment=SignallingEnvironment())
    assert Supervisor(tmp_path, Launches(forever), relay=False).run() == TERMINATED


def test_ranks_that_finish_when_told_to_stop_have_finished(tmp_path: Path, pipe: Path) -> None:
    sender = terminating(pipe, signal.SIGTERM)
    launch = python(BETWEEN_RECORDS, str(pipe), str(tmp_path / JOURNAL_FILE), encode(END) + "\n")
    assert supervise(tmp_path, launch) == (0, 1)
    sender.join()
