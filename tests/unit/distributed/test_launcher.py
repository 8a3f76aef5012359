"""The launcher pod's first process, as a process: with a real mpirun on this host, and an API server over HTTPS."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from quantuner.api.journal import Finished, History, Trial, lines_of
from quantuner.api.names import FORKS_VARIABLE, LOSSES_KEY
from quantuner.distributed.journal import JOURNAL_FILE, read_lines
from quantuner.distributed.supervisor import TERMINATED
from tests.unit.cli.tasks import TASK, TRIALS, written
from tests.unit.distributed.api_server import ApiServer
from tests.unit.distributed.forks import children, ending, parent
from tests.unit.strategy.judged import essence

SECONDS = 120
"""Never reached by a test that passes."""
TOLD = 3
"""Trials told, the baseline one of them, after which every evaluation hangs. Not so many evaluated: one rank may be at
the first trial while the other does all that come later, of which none can be told."""
WATCHED = f"""
import dataclasses, os, time
from pathlib import Path
import tiny
folder = Path(__file__).parent

def task():
    made = tiny.task()
    judge = made.eval_func

    def watched(model):
        found = judge(model)
        with open(folder / "evaluations", "a") as file:
            file.write(f"{{os.getpid()}} {{found!r}}\\n")
        if (folder / "deadly").exists() and repr(found) == (folder / "deadly").read_text():
            os.kill(os.getpid(), 9)
        hangs = folder / "hangs"  # says where the journal is
        if hangs.exists() and len(Path(hangs.read_text()).read_text().splitlines()) >= 1 + {TOLD}:
            print("under way")
            time.sleep({SECONDS})
        return found

    return dataclasses.replace(made, eval_func=watched)
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """The task, its resource and a hostfile with two slots on this host."""
    folder = tmp_path / "code"
    written(folder, "watched:task", slotsPerWorker=2, runLauncherAsWorker=True)
    (folder / "watched.py").write_text(WATCHED)
    (folder / "hostfile").write_text("localhost slots=2\n")
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    """What the same search of the same model tells in series."""
    folder = tmp_path_factory.mktemp("alone")
    file = written(folder)
    (folder / "tiny.py").write_text(TASK)
    command = [sys.executable, "-m", "quantuner.run", "--tuning", str(file), "--code", str(folder), "--serial"]
    done = subprocess.run([*command, "--workspace", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return History.replay(read_lines(folder / JOURNAL_FILE)).trials


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(code: Path, tmp_path: Path, api: ApiServer, account: Path) -> Iterator[Start]:
    """Starts a launcher as its pod does, in a workspace of this name, with these variables.

    Open MPI wants two more of root.
    """
    pod = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(api.port)}
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    command = [sys.executable, "-m", "quantuner.distributed.launcher", "--tuning", str(code / "tuning.yaml")]
    command += ["--code", str(code), "--hostfile", str(code / "hostfile"), "--account", str(account)]
    command += ["--journal", "journal", "--result", "result", "--workspace"]
    started: list[subprocess.Popen[str]] = []

    def launcher(name: str, **variables: str) -> subprocess.Popen[str]:
        (tmp_path / name).mkdir()
        environment = {**os.environ, **pod, **root, **variables}
        started.append(
            subprocess.Popen([*command, str(tmp_path / name)], env=environment, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield launcher
    for process in started:
        process.terminate()
        process.communicate(timeout=SECONDS)


def await_line(process: subprocess.Popen[str], text: str) -> None:
    """Returns when the process has said this; fails where it ends without."""
    assert process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if text in line:
            return
    raise AssertionError(f"it ended without saying {text!r}: {''.join(said)}")


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=SECONDS)
    return process.returncode, said


def evaluations(code: Path) -> list[tuple[int, float]]:
    """Of each evaluation the process and what it found."""
    lines = (line.split() for line in (code / "evaluations").read_text().splitlines())
    return [(int(process), float(found)) for process, found in lines]


def test_a_drained_launcher_brings_all_that_was_told_to_the_cluster_and_the_next_one_goes_on(
    code: Path, tmp_path: Path, api: ApiServer, start: Start, undisturbed: list[Trial]
) -> None:
    (code / "hangs").write_text(str(tmp_path / "first-pod" / JOURNAL_FILE))
    first = start("first-pod")
    await_line(first, "under way")
    api.faults.extend([503] * 3)  # what is not there yet has to be brought while it is being ended
    first.send_signal(signal.SIGTERM)
    code_of_first, said = ended(first)
    assert code_of_first == TERMINATED, said
    kept = lines_of(api.maps["journal"])
    assert kept == read_lines(tmp_path / "first-pod" / JOURNAL_FILE)
    assert len(History.replay(kept).trials) >= TOLD
    for process in {process for process, _ in evaluations(code)}:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)

    begun = len(evaluations(code))
    (code / "hangs").unlink()
    code_of_second, said = ended(start("second-pod"))
    assert code_of_second == 0, said
    found = History.replay(lines_of(api.maps["journal"]))
    assert isinstance(found.end, Finished)
    assert [launch.ranks for launch in found.launches] == [2, 2]
    assert lines_of(api.maps["journal"])[: len(kept)] == kept
    accuracies = [trial.accuracy for trial in found.trials]
    assert len(set(accuracies[1:])) == TRIALS  # so that an accuracy says which trial was evaluated
    *again, verified = [accuracy for _, accuracy in evaluations(code)[begun:]]
    # Whichever of them were under way before. One that took a second then, and waited to be told, is not done again.
    assert set(again) <= set(accuracies[len(History.replay(kept).trials) :])
    assert all(times <= 2 for times in Counter(again).values())  # a slow one is given to one idle rank more
    assert verified == found.end.accuracy
    assert essence(found.trials) == essence(undisturbed)


def test_a_trial_that_kills_a_launcher_alone_has_failed_and_the_search_goes_on(
    code: Path, api: ApiServer, start: Start, undisturbed: list[Trial]
) -> None:
    (code / "deadly").write_text(repr(undisturbed[2].accuracy))
    (code / "hostfile").write_text("localhost slots=1\n")
    code_of_it, said = ended(start("pod"))
    assert code_of_it == 0, said
    found = History.replay(lines_of(api.maps["journal"]))
    assert [launch.ranks for launch in found.launches] == [1, 1, 1]
    assert isinstance(found.end, Finished)
    assert [trial.index for trial in found.trials if trial.error] == [2]
    assert essence(found.trials[:2]) == essence(undisturbed[:2])
    assert len(evaluations(code)) == len(found.trials) + 1 + 1  # deadly twice, and the winner's again
    assert json.loads(api.maps["result"][LOSSES_KEY]) == {"2": 2}


def test_a_launcher_that_waits_for_the_api_server_ends_when_it_is_told_to(
    code: Path, tmp_path: Path, api: ApiServer, start: Start
) -> None:
    api.faults.extend([503] * 1000)
    process = start("pod")
    await_line(process, "the journal cannot be restored yet")
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == TERMINATED
    assert not (code / "evaluations").exists()


def test_ranks_are_given_the_launchers_slots_and_the_users_variables(
    code: Path, tmp_path: Path, api: ApiServer, start: Start
) -> None:
    """Where the launcher does not evaluate, rank 0 is alone in its pod, however many slots mpi-operator gives it."""
    body = yaml.safe_load((code / "tuning.yaml").read_text())
    body["spec"] |= {"runLauncherAsWorker": False, "template": {"env": [{"name": "USERS_OWN", "value": "x"}]}}
    (code / "tuning.yaml").write_text(yaml.safe_dump(body))
    code_of_it, said = ended(start("pod"))
    assert code_of_it == 0, said
    (launch,) = History.replay(lines_of(api.maps["journal"])).launches
    assert launch.ranks == 1
    assert "-n 1 --map-by slot" in said
    assert "-x USERS_OWN" in said


def test_ranks_are_forks_of_a_server_and_end_with_their_launcher(code: Path, tmp_path: Path, start: Start) -> None:
    (code / "hangs").write_text(str(tmp_path / "pod" / JOURNAL_FILE))
    process = start("pod", **{FORKS_VARIABLE: "1"})
    await_line(process, "under way")
    server = parent(evaluations(code)[0][0])
    assert parent(server) == process.pid
    first, second = children(server)  # whether or not both have evaluated yet
    with ending(server), ending(first), ending(second):
        process.kill()
