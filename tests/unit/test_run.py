"""A rank's main. In this process without MPI, and as real ranks that must agree before they search."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from quantuner import run
from quantuner.api.conditions import Failure
from quantuner.api.journal import NOT_KEPT, Failed, Finished, History, Outcome
from quantuner.api.timeline import Ending, Kind, LaunchSpans, read
from quantuner.distributed import mpirun
from quantuner.distributed.journal import JournalFolder, read_history
from quantuner.engine.engine import cpu_kind, threads
from quantuner.strategy.registry import _strategies
from tests.unit.engine.kept import mark_ranges
from tests.unit.records import launched, manifest, told
from tests.unit.strategy.judged import essence
from tests.unit.waiting import KEPT_ACCURACY, interrupt_and_keep

pytestmark = pytest.mark.usefixtures("fresh_forks_begin")
TASK = """
import os
import torch
from torch import nn
from quantuner import Task
from quantuner.strategy import TuneStrategy, strategy_registry

RANK = os.environ.get("OMPI_COMM_WORLD_RANK", "0")
{top}

@strategy_registry
class UserOwnTuneStrategy(TuneStrategy):
    def stages(self):
        yield [self.start(100)]

def make(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 2)).eval()
    data = torch.ones(4, 4)
    total = lambda m: float(m(data).sum())
    return Task(model=model, example_inputs=(data,), calib_dataloader={loader}, eval_func=total)
"""


def prepared(folder: Path, *, top: str = "", loader: str = "[data]", **spec: Any) -> list[str]:
    """The arguments of a rank, for a task whose module has `top` at its top."""
    name = f"user_{folder.name.replace('-', '_')}"
    (folder / f"{name}.py").write_text(TASK.format(top=top, loader=loader))
    body = manifest(
        {
            "task": {"entrypoint": f"{name}:make"},
            "tuningCriterion": {"strategy": "userown"},
            "accuracyCriterion": {"tolerableLoss": 0.9},
            **spec,
        }
    )
    (folder / "tuning.yaml").write_text(yaml.safe_dump(body))
    workspace = folder / "workspace"
    return ["--tuning", str(folder / "tuning.yaml"), "--code", str(folder), "--workspace", str(workspace)]


def history(folder: Path) -> History:
    return read_history(folder / "workspace" / "journal.jsonl")


def timeline(folder: Path) -> list[LaunchSpans]:
    return read((folder / "workspace" / "timeline.jsonl").read_text().splitlines())


def failure(folder: Path) -> Failed:
    end = history(folder).end
    assert isinstance(end, Failed)
    return end


# --- in this process


@pytest.fixture(autouse=True)
def _forget_the_users_modules() -> Iterator[None]:
    path, strategies = list(sys.path), dict(_strategies)
    with threads(1):
        yield
    sys.path[:] = path
    _strategies.clear()
    _strategies.update(strategies)
    for name in [name for name in sys.modules if name.startswith("user_")]:
        del sys.modules[name]


def test_a_search_with_the_users_own_strategy(tmp_path: Path) -> None:
    assert run.main([*prepared(tmp_path), "--serial"]) == 0
    end = history(tmp_path).end
    assert isinstance(end, Finished)
    assert (end.best, end.artifact) == (1, str(tmp_path / "workspace" / "model"))
    report = yaml.safe_load((tmp_path / "workspace" / "model" / "report.json").read_text())
    assert (report["trial"], report["accuracy"], report["outcome"]) == (1, end.accuracy, "target-met")
    assert report["model"] == history(tmp_path).launches[0].model


HOOKED = """
@strategy_registry
class HookedTuneStrategy(TuneStrategy):
    def stages(self):
        yield [self.start(100)]

    def traverse(self):
        BODY
"""


@pytest.mark.parametrize("body", ["self.no_such_thing", "return super().traverse().no_such_thing"])
def test_a_mistake_in_the_users_own_traverse_ends_the_search_by_its_name(tmp_path: Path, body: str) -> None:
    top = HOOKED.replace("BODY", body)
    assert run.main([*prepared(tmp_path, top=top, tuningCriterion={"strategy": "hooked"}), "--serial"]) == 0
    assert failure(tmp_path).reason == Failure.STRATEGY_RAISED
    assert "HookedTuneStrategy raised at user_" in failure(tmp_path).message
    assert "no_such_thing" in failure(tmp_path).message


@pytest.mark.parametrize("body", ["super().traverse()", "pass"])
def test_a_traverse_that_returns_nothing_ends_a_search_if_it_has_searched(tmp_path: Path, body: str) -> None:
    top = HOOKED.replace("BODY", body)
    assert run.main([*prepared(tmp_path, top=top, tuningCriterion={"strategy": "hooked"}), "--serial"]) == 0
    if body == "pass":
        assert failure(tmp_path).reason == Failure.STRATEGY_RAISED
    else:
        assert isinstance(history(tmp_path).end, Finished)


TINY = """
torch.set_flush_denormal(True)

class Tiny(nn.Module):
    def forward(self, x):
        return x * 1e-40 * 1e20 * 1e20
"""


def test_a_winner_that_computes_otherwise_in_a_fresh_process_is_none(tmp_path: Path) -> None:
    arguments = [*prepared(tmp_path, top=TINY), "--serial"]
    (module,) = tmp_path.glob("user_*.py")
    module.write_text(module.read_text().replace("nn.Linear(4, 2)", "nn.Linear(4, 2), Tiny()"))
    try:
        run.main(arguments)
    finally:
        torch.set_flush_denormal(False)
    assert [trial.accuracy for trial in history(tmp_path).trials] == [0.0, 0.0]
    assert failure(tmp_path).reason == Failure.VERIFICATION_FAILED
    assert "leave torch's global settings alone" in failure(tmp_path).message


def test_a_journal_that_has_ended_is_not_added_to(tmp_path: Path) -> None:
    arguments = [*prepared(tmp_path), "--serial"]
    run.main(arguments)
    before = (tmp_path / "workspace" / "journal.jsonl").read_bytes()
    assert run.main(arguments) == 1
    assert (tmp_path / "workspace" / "journal.jsonl").read_bytes() == before


def cut_after_the_baseline(folder: Path) -> None:
    journal = folder / "workspace" / "journal.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:2]))


def test_a_search_that_goes_on_does_not_calibrate_again(tmp_path: Path) -> None:
    arguments = [*prepared(tmp_path), "--serial"]
    run.main(arguments)
    whole = essence(history(tmp_path).trials)
    cut_after_the_baseline(tmp_path)
    assert run.main(arguments) == 0
    assert essence(history(tmp_path).trials) == whole
    cut_after_the_baseline(tmp_path)
    mark_ranges(tmp_path / "workspace")
    run.main(arguments)  # takes the ranges as they are kept, and the journal knows that they are others
    assert "what calibration collects" in failure(tmp_path).message


def test_what_was_measured_and_not_told_is_not_measured_again(tmp_path: Path) -> None:
    arguments = [*prepared(tmp_path), "--serial"]
    run.main(arguments)
    interrupt_and_keep(tmp_path / "workspace", told=0, waiting=1)
    run.main(arguments)
    assert history(tmp_path).trials[1].accuracy == KEPT_ACCURACY
    assert failure(tmp_path).reason == Failure.VERIFICATION_FAILED  # it was not what the model really has


def test_what_was_measured_without_a_time_limit_is_not_told_in_a_search_that_has_one(tmp_path: Path) -> None:
    """Its seconds are those of another way to evaluate, and decide who wins."""
    run.main([*prepared(tmp_path), "--serial"])
    interrupt_and_keep(tmp_path / "workspace", told=0, waiting=1)
    limited: dict[str, Any] = {"tuningCriterion": {"strategy": "userown", "timeoutSeconds": 600}}
    assert run.main([*prepared(tmp_path, **limited), "--serial"]) == 0
    assert isinstance(history(tmp_path).end, Finished)
    assert history(tmp_path).trials[1].accuracy != KEPT_ACCURACY


def test_a_search_anew_measures_all(tmp_path: Path) -> None:
    arguments = [*prepared(tmp_path), "--serial"]
    run.main(arguments)
    interrupt_and_keep(tmp_path / "workspace", told=0, waiting=1)
    (tmp_path / "workspace" / "journal.jsonl").unlink()
    run.main(arguments)
    assert history(tmp_path).trials[1].accuracy != KEPT_ACCURACY


@pytest.mark.parametrize(
    ("output", "artifact"),
    [
        (None, NOT_KEPT),
        ({"persistentVolumeClaim": {"claimName": "models"}}, "persistentvolumeclaim/models/digits/model"),
        ({"persistentVolumeClaim": {"claimName": "m"}, "path": "a/b"}, "persistentvolumeclaim/m/a/b/model"),
    ],
    ids=["no output", "a claim", "a claim and a path"],
)
def test_in_a_pod_the_model_is_named_by_its_volume(tmp_path: Path, output: Any, artifact: str) -> None:
    spec = {} if output is None else {"output": output}
    arguments = [*prepared(tmp_path, **spec), "--serial", "--in-pod", "--output", str(tmp_path / "claim")]
    assert run.main(arguments) == 0
    end = history(tmp_path).end
    assert isinstance(end, Finished)
    assert end.artifact == artifact
    assert (tmp_path / "claim" / "model" / "model.pt2").is_file()
    # The workspace ends with the pod.
    assert (tmp_path / "claim" / "timeline.jsonl").read_text() == (
        tmp_path / "workspace" / "timeline.jsonl"
    ).read_text()


def test_what_rank_0_did_is_recorded(tmp_path: Path) -> None:
    run.main([*prepared(tmp_path), "--serial"])
    [launch] = timeline(tmp_path)
    assert (launch.ranks, len(launch.hosts)) == (1, 1)
    spans = sorted(launch.spans, key=lambda span: span.start)
    did = {span.kind: span for span in spans if span.kind in (Kind.SETUP, Kind.BASELINE, Kind.VERIFY)}
    assert list(did) == [Kind.SETUP, Kind.BASELINE, Kind.VERIFY]
    assert did[Kind.SETUP].end <= did[Kind.BASELINE].start <= did[Kind.BASELINE].end <= did[Kind.VERIFY].start
    assert did[Kind.VERIFY].index == 1
    assert {span.outcome for span in did.values()} == {Ending.TOLD}
    assert launch.ended is not None
    assert launch.ended >= did[Kind.VERIFY].end


def test_a_timeline_whose_journal_was_moved_away_begins_anew(tmp_path: Path) -> None:
    arguments = [*prepared(tmp_path), "--serial"]
    run.main(arguments)
    (tmp_path / "workspace" / "journal.jsonl").rename(tmp_path / "workspace" / "kept.jsonl")
    run.main(arguments)
    assert len(timeline(tmp_path)) == 1


def test_a_baseline_that_raises_is_recorded_as_failed_and_the_launch_as_ended(tmp_path: Path) -> None:
    run.main([*prepared(tmp_path, top="def float(value): raise ValueError('not a number')"), "--serial"])
    assert failure(tmp_path).reason == Failure.EVALUATION_FAILED
    [launch] = timeline(tmp_path)
    assert (launch.spans[-1].kind, launch.spans[-1].outcome) == (Kind.BASELINE, Ending.FAILED)
    assert launch.ended is not None


@pytest.mark.parametrize(
    ("spec", "reason", "says"),
    [
        pytest.param(
            {"tuningCriterion": {"strategy": "bayes"}}, Failure.UNKNOWN_STRATEGY, "'bayes' is not known", id="strategy"
        ),
        pytest.param(
            {"quantization": {"opNames": [{"pattern": "conv1", "weight": {"dtype": ["fp32"]}}]}},
            Failure.OVERRIDE_MATCHES_NOTHING,
            "'conv1' matches none of the 1 names as a whole; the nearest is 0",
            id="override",
        ),
        pytest.param(
            {"task": {"entrypoint": "user_no:make"}}, Failure.TASK_IMPORT_FAILED, "No module named", id="task"
        ),
        pytest.param(
            {"quantization": {"approach": "qat"}},
            Failure.TASK_INVALID,
            "needs a training function; give q_func (or Task.train_func)",
            id="nothing trains",
        ),
        pytest.param(
            {"workers": 0}, Failure.INTERNAL_ERROR, "the resource cannot be read: spec.workers", id="resource"
        ),
    ],
)
def test_what_the_user_must_correct_ends_the_journal(tmp_path: Path, spec: Any, reason: Failure, says: str) -> None:
    assert run.main([*prepared(tmp_path, **spec), "--serial"]) == 0
    assert failure(tmp_path).reason == reason
    assert says in failure(tmp_path).message


def test_a_journal_of_another_search_is_refused(tmp_path: Path) -> None:
    arguments = prepared(tmp_path)
    journal = JournalFolder(tmp_path / "workspace")
    journal.append(launched(search="other"))
    journal.append(told(0, 0.9))
    journal.close()
    assert run.main([*arguments, "--serial"]) == 0
    assert failure(tmp_path).reason == Failure.JOURNAL_MISMATCH
    assert "of another search: the resource was 'other' and is now" in failure(tmp_path).message


def test_what_the_baseline_imports_does_not_make_a_resumed_search_another_one(tmp_path: Path) -> None:
    (tmp_path / "user_late.py").write_text("")
    arguments = [*prepared(tmp_path, top="def float(value): import user_late; return value.item()"), "--serial"]
    run.main(arguments)
    cut_after_the_baseline(tmp_path)
    for name in [name for name in sys.modules if name.startswith("user_")]:
        del sys.modules[name]
    assert run.main(arguments) == 0
    assert isinstance(history(tmp_path).end, Finished)


SHUFFLED = "[torch.rand(4, 4, generator=torch.Generator().manual_seed(int.from_bytes(os.urandom(4))))]"


@pytest.mark.parametrize(
    ("first", "then", "says"),
    [
        pytest.param({}, {"top": "# changed"}, "the task's code was", id="code"),
        pytest.param({"loader": SHUFFLED}, {"loader": SHUFFLED}, "no shuffling", id="calibration data"),
    ],
)
def test_results_of_another_search_are_not_continued(tmp_path: Path, first: Any, then: Any, says: str) -> None:
    run.main([*prepared(tmp_path, **first), "--serial"])
    path = tmp_path / "workspace" / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]))  # interrupted after the baseline
    for name in [name for name in sys.modules if name.startswith("user_")]:
        del sys.modules[name]
    assert run.main([*prepared(tmp_path, **then), "--serial"]) == 0
    assert failure(tmp_path).reason == Failure.JOURNAL_MISMATCH
    assert says in failure(tmp_path).message
    assert len(history(tmp_path).trials) == 1


# --- real ranks


Ranks = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ranks(forked_rank: Callable[..., list[str]]) -> Ranks:
    """Runs so many ranks to their end."""

    def run_them(folder: Path, count: int, **prepare: Any) -> subprocess.CompletedProcess[str]:
        launch = mpirun.local(count, forked_rank(run.__name__, *prepared(folder, **prepare)))
        environment = {**os.environ, **launch.environment}
        return subprocess.run(launch.command, env=environment, capture_output=True, text=True, timeout=120)

    return run_them


ADAPTIVE = """
@strategy_registry
class AdaptiveTuneStrategy(TuneStrategy):
    def next_tune_cfg(self):
        _, _, config = self.initial_tuning_cfg()
        (op,) = config
        yield {**config, "calib_sampling_size": 100}
        for item, option in (("algorithm", "minmax"), ("scheme", "sym"), ("algorithm", "kl")):
            best = self.cur_best_tuning_cfg
            state = best[op].get_state()
            state["activation"][item] = option
            yield {**best, op: state}
        if self.last_tune_result[0] == self.cur_best_acc:  # a tie is the later one's
            yield {**self.cur_best_tuning_cfg, op: {"activation": {"dtype": "fp32", "quant_mode": "fp32"}}}
"""
"""Asks for one configuration at a time, each made from what the ones before gave."""


def test_the_users_strategy_that_asks_one_by_one_tells_the_same_on_ranks_as_in_one_process(
    ranks: Ranks, tmp_path: Path
) -> None:
    spec = {"tuningCriterion": {"strategy": "adaptive"}, "accuracyCriterion": {"tolerableLoss": 0}}
    found: dict[int, tuple[Any, ...]] = {}
    for count in (1, 2):
        folder = tmp_path / f"ranks-{count}"
        folder.mkdir()
        done = ranks(folder, count, top=ADAPTIVE, **spec)
        assert done.returncode == 0, done.stderr
        end = history(folder).end
        assert isinstance(end, Finished)
        found[count] = essence(history(folder).trials), end.outcome, end.best, end.accuracy
    trials, outcome, best, _ = found[1]
    assert [label for *_, label in trials[1:]] == [
        *(f"Linear static/{options}" for options in ("asym/kl", "asym/minmax", "sym/minmax", "sym/kl")),
        "Linear fp32",
    ]
    assert (outcome, best) == (Outcome.TARGET_MET, 5)
    assert found[2] == found[1]


OVERRIDING = """
from quantuner.api.errors import SearchError

@strategy_registry
class OverridingTuneStrategy(TuneStrategy):
    def next_tune_cfg(self):
        assert [len(batch) for batch in self.calib_dataloader] == [4] and self.eval_func is not None
        yield from ({**self.cur_best_tuning_cfg, "calib_sampling_size": 100} for _ in range(2))

    def traverse(self):
        self.called = ["traverse"]
        super().traverse()
        print(*self.called)

    def distributed_traverse(self):
        self.called.append("distributed_traverse")
        return super().distributed_traverse()

    def master_worker_handle(self, comm):
        self.called.append(f"master {comm.Get_rank()} of {comm.Get_size()}")
        AT_0
        return super().master_worker_handle(comm)

    def slave_worker_handle(self, comm):
        self.called.append(f"slave {comm.Get_rank()} of {comm.Get_size()}")
        AT_1
        return super().slave_worker_handle(comm)
"""


def test_what_the_user_overrides_is_called_on_ranks_as_by_fit(ranks: Ranks, tmp_path: Path) -> None:
    spec: dict[str, Any] = {"tuningCriterion": {"strategy": "overriding"}}
    top = OVERRIDING.replace("AT_0", "").replace("AT_1", "")
    done = ranks(tmp_path, 2, top=top, **spec)
    assert isinstance(history(tmp_path).end, Finished), done.stderr
    assert sorted(done.stdout.splitlines()) == [
        f"traverse distributed_traverse {handle} of 2" for handle in ("master 0", "slave 1")
    ]
    alone = tmp_path / "alone"
    alone.mkdir()
    assert run.main([*prepared(alone, top=top, **spec), "--serial"]) == 0
    assert essence(history(alone).trials) == essence(history(tmp_path).trials)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("raise SearchError('StrategyRaised', 'no hook')", "no hook"),
        ("return", "OverridingTuneStrategy returned from its search without an end"),
        ("raise ValueError('no hook')", "OverridingTuneStrategy raised"),
    ],
    ids=["raises", "does not search", "has a mistake"],
)
def test_a_handle_that_fails_on_one_rank_ends_the_search_on_all(
    ranks: Ranks, tmp_path: Path, rank: int, statement: str, says: str
) -> None:
    top = OVERRIDING.replace(f"AT_{rank}", statement).replace(f"AT_{1 - rank}", "")
    done = ranks(tmp_path, 2, top=top, tuningCriterion={"strategy": "overriding"})
    assert done.returncode == 0, done.stderr
    assert failure(tmp_path).reason == Failure.STRATEGY_RAISED
    assert failure(tmp_path).message.startswith(says)


SLOW_RANK_1 = """
import time
from pathlib import Path

MEASURED = Path(__file__).with_name("measured")

def float(value):
    if RANK == "0":
        MEASURED.touch()
    return value.item()

patience = time.monotonic() + 60
while RANK == "1" and not MEASURED.exists():
    assert time.monotonic() < patience, "rank 0 does not measure its baseline while this rank loads"
    time.sleep(0.01)
"""


def test_rank_0_measures_the_baseline_while_others_load(ranks: Ranks, tmp_path: Path) -> None:
    """Rank 1 has not loaded before rank 0 has measured."""
    done = ranks(tmp_path, 2, top=SLOW_RANK_1)
    assert done.returncode == 0, done.stderr
    assert isinstance(history(tmp_path).end, Finished), history(tmp_path).end
    [launch] = timeline(tmp_path)
    [baseline] = [span for span in launch.spans if span.kind == Kind.BASELINE]
    [loading] = [span for span in launch.spans if (span.rank, span.kind) == (1, Kind.SETUP)]
    assert (baseline.rank, baseline.outcome) == (0, Ending.TOLD)
    assert loading.start < baseline.start < loading.end


def test_one_rank_that_cannot_import_the_task_ends_them_all_with_its_error(ranks: Ranks, tmp_path: Path) -> None:
    done = ranks(tmp_path, 2, top="if RANK == '1': raise OSError('no data on this host')")
    assert done.returncode == 0, done.stderr
    end = failure(tmp_path)
    assert end.reason == Failure.TASK_IMPORT_FAILED
    assert end.message.endswith("in <module>: OSError: no data on this host (on rank 1)")
    assert "no data on this host" in end.traceback
    assert history(tmp_path).launches == []


def test_a_rank_that_exits_while_the_others_wait_ends_them_with_its_error(ranks: Ranks, tmp_path: Path) -> None:
    leaves = """
class Leaves:
    def __iter__(self):
        raise SystemExit("no calibration data")
"""
    done = ranks(tmp_path, 2, top=leaves, loader="Leaves()")
    assert done.returncode == 0, done.stderr
    assert failure(tmp_path).reason == Failure.CALIBRATION_FAILED
    assert "SystemExit: no calibration data" in failure(tmp_path).message


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        pytest.param(
            {"loader": "[data + int(RANK)]"}, r"data is [0-9a-f]{16} and not [0-9a-f]{16}.*no shuffling", id="data"
        ),
        pytest.param(
            {"top": "torch.set_num_threads(1 + int(RANK))"},
            r"threads is 2 and not 1 \(ranks that differ: 1, 2\); let the task's code leave torch's",
            id="threads",
        ),
        pytest.param(
            {"top": "if RANK == '1': import user_only_here"},
            r"code is [0-9a-f]{16} and not [0-9a-f]{16}; give every rank the same files",
            id="code",
        ),
    ],
)
def test_ranks_that_differ_do_not_search(ranks: Ranks, tmp_path: Path, prepare: dict[str, str], says: str) -> None:
    (tmp_path / "user_only_here.py").write_text("")
    done = ranks(tmp_path, 3, **prepare)
    assert done.returncode == 0, done.stderr
    assert failure(tmp_path).reason == Failure.RANKS_DIFFER
    assert not history(tmp_path).trials
    assert failure(tmp_path).message.startswith(f"rank 1 on {socket.gethostname()} differs from rank 0 on ")
    assert re.search(says, failure(tmp_path).message), failure(tmp_path).message


@pytest.mark.parametrize(
    ("spec", "threads"),
    [
        pytest.param({}, 1, id="nothing said"),
        pytest.param({"threadsPerRank": 2}, 2, id="the user's own"),
        pytest.param({"template": {"resources": {"limits": {"cpu": "6"}}}, "slotsPerWorker": 2}, 3, id="its share"),
    ],
)
def test_a_launch_records_the_threads_of_its_ranks(tmp_path: Path, spec: dict[str, Any], threads: int) -> None:
    assert run.main([*prepared(tmp_path, **spec), "--serial"]) == 0
    (launch,) = history(tmp_path).launches
    assert (launch.threads, launch.cpu) == (threads, cpu_kind())


def test_a_search_goes_on_with_the_threads_of_its_results(tmp_path: Path) -> None:
    """Slots may change; were the threads to change with them, so would the last bits of the accuracies."""
    six: dict[str, Any] = {"template": {"resources": {"limits": {"cpu": "6"}}}}
    assert run.main([*prepared(tmp_path, **six), "--serial"]) == 0
    journal = tmp_path / "workspace" / "journal.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:2]))
    assert run.main([*prepared(tmp_path, **six, slotsPerWorker=3), "--serial"]) == 0
    assert [launch.threads for launch in history(tmp_path).launches] == [6, 6]
    assert isinstance(history(tmp_path).end, Finished)


def test_other_threads_of_the_users_own_are_refused_under_results(tmp_path: Path) -> None:
    assert run.main([*prepared(tmp_path, threadsPerRank=1), "--serial"]) == 0
    journal = tmp_path / "workspace" / "journal.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:2]))
    assert run.main([*prepared(tmp_path, threadsPerRank=2), "--serial"]) == 0
    assert failure(tmp_path).reason == Failure.JOURNAL_MISMATCH
    assert "the number of threads of a rank (spec.threadsPerRank" in failure(tmp_path).message
    assert "was 1 and is now 2. Restore it" in failure(tmp_path).message


def test_ranks_with_different_weights_do_not_search(ranks: Ranks, tmp_path: Path) -> None:
    done = ranks(tmp_path, 2, top="torch.manual_seed = lambda seed: torch.random.manual_seed(int(RANK))")
    assert done.returncode == 0, done.stderr
    assert failure(tmp_path).reason == Failure.RANKS_DIFFER
    assert ": model is " in failure(tmp_path).message
    assert "seed what the task trains or load them from a file" in failure(tmp_path).message


def test_a_rank_that_dies_ends_the_others_and_leaves_the_journal_open(ranks: Ranks, tmp_path: Path) -> None:
    done = ranks(tmp_path, 2, top="if RANK == '1': os.kill(os.getpid(), 9)")
    assert "this rank cannot go on" in done.stderr  # mpirun's own code is 0 then
    assert history(tmp_path).end is None
