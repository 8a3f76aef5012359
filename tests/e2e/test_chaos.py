"""Everything that a search leans on is killed while it runs: its history and its winner stay."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from quantuner.api.journal import Finished, History, Outcome, TrialState
from tests.e2e.kube import Kube, condition, has_ended, is_true
from tests.e2e.losses import (
    kill_api_server,
    kill_launcher_pod,
    kill_operator_pod,
    kill_rank,
    kill_worker_pod,
)
from tests.e2e.release import Release
from tests.e2e.steady import await_told, run_here, steady, steady_code
from tests.e2e.tunings import history

pytestmark = pytest.mark.cluster

SEED = 20
TRIALS = 64
FIRST, EVERY, WITHIN = 4, 11, 6
"""Loss n comes WITHIN that many trials after trial FIRST + n * EVERY."""
TRIAL_SECONDS = 1.0  # one rank must not tell the other half of all trials while the API server is away
NAME = "chaos"


def moments(seed: int, losses: int) -> list[int]:
    """How many trials are told when each loss comes; at least EVERY - WITHIN + 1 lie between two."""
    generator = random.Random(seed)
    return [FIRST + number * EVERY + generator.randrange(WITHIN) for number in range(losses)]


def test_a_search_survives_the_loss_of_everything_in_turn(kube: Kube, release: Release, tmp_path: Path) -> None:
    if not release.cluster.is_ours:
        pytest.skip("the API server of an existing cluster is not ours to kill")
    losses: list[Callable[[], object]] = [
        lambda: kill_rank(kube, f"{NAME}-worker-0"),
        lambda: kill_operator_pod(release),
        lambda: kill_api_server(release),
        lambda: kill_worker_pod(kube, f"{NAME}-worker-1"),
        lambda: kill_launcher_pod(kube, NAME),
    ]
    body = steady(NAME, TRIAL_SECONDS, TRIALS)
    kube.apply(steady_code(), body)

    seen: list[History] = []
    for moment, kill in zip(moments(SEED, len(losses)), losses, strict=True):
        found = await_told(kube, NAME, moment)
        assert len(found.tried) < TRIALS, f"seed {SEED}: the search was over before it lost anything at {moment}"
        seen.append(found)
        release.cluster.revive("mpi-operator")
        kill()
    done = kube.await_object("qtune", NAME, has_ended, "ended")
    assert is_true("Complete")(done), (SEED, condition(done, "Failed"))
    disturbed = history(kube, NAME)

    # Neither a rank, the operator nor the API server costs a launch; pods do, and all ranks come back.
    assert [len(found.launches) for found in seen[:4]] == [1, 1, 1, 1], f"seed {SEED}"
    assert len(disturbed.launches) >= 3
    assert disturbed.launches[-1].ranks == 3
    alone = disturbed.tried[len(seen[1].tried) + 2 : len(seen[3].tried)]  # after what both ranks still had in hand
    assert len({trial.rank for trial in alone}) == 1, f"seed {SEED}: the killed rank told trials, or was not killed"

    undisturbed = run_here(body, tmp_path)
    assert len(undisturbed.tried) == TRIALS
    assert len({trial.digest for trial in undisturbed.tried}) == TRIALS
    assert _answer(disturbed) == _answer(undisturbed), f"seed {SEED}"
    assert disturbed.launches[0].search == undisturbed.launches[0].search
    assert isinstance(disturbed.end, Finished)
    assert done["status"]["best"]["trial"] == disturbed.end.best


def _answer(
    found: History,
) -> tuple[list[tuple[int, str, float | None, TrialState]], Outcome, int | None, float | None]:
    assert isinstance(found.end, Finished), found.end
    told = [(t.index, t.digest, t.accuracy, t.state) for t in found.trials]
    return told, found.end.outcome, found.end.best, found.end.accuracy
