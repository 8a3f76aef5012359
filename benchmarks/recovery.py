"""What a loss costs a search on the test cluster: a killed rank, a lost pod, a lost launcher.

The same search of 64 trials runs four times, undisturbed first; halfway something is killed. Of a pod and of the
launcher the seconds are those between the first and the last trial told, less the undisturbed search's: all ranks come
back. A killed rank does not, and the others go on without it. There the seconds are those that they idled after it was
killed, and those that it had spent on the trial which died with it. The last line is one JSON object;
`repeated_trials` counts evaluations of trials that the journal ConfigMap told before.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.recovery_spans import repeated, seconds_of_a_lost_rank
from quantuner.api.journal import lines_of
from quantuner.api.names import journal_configmap
from quantuner.api.timeline import LaunchSpans, read
from tests.e2e.kube import Kube, has_ended, is_true
from tests.e2e.losses import kill_launcher_pod, kill_rank, kill_worker_pod
from tests.e2e.release import TEST_VOLUME, fresh_namespace, installed
from tests.e2e.steady import await_told, steady, steady_code
from tests.e2e.volumes import volume_in

NAME = "recovery"
TRIALS = 64
HALFWAY = TRIALS // 2
Kill = Callable[[Kube], float | None]


@dataclass(frozen=True)
class Run:
    seconds: float
    """Between the first and the last trial told, as the cluster sees them."""
    lines: list[str]
    """Of the journal."""
    launches: list[LaunchSpans]
    """Those that the last launcher pod saw."""
    killed: float | None
    """When, in seconds since 1970, where the kill says so."""


def main() -> None:
    kills: dict[str, Kill] = {
        "undisturbed": lambda _: None,
        "rank": lambda kube: kill_rank(kube, f"{NAME}-worker-0"),
        "pod": lambda kube: kill_worker_pod(kube, f"{NAME}-worker-0"),
        "launcher": lambda kube: kill_launcher_pod(kube, NAME),
    }
    runs: dict[str, Run] = {}
    with installed() as release:
        for what, kill in kills.items():
            with fresh_namespace(release.kube) as kube, tempfile.TemporaryDirectory() as folder:
                runs[what] = run(kube, Path(folder), kill)
            # The end of one run's pods must not slow the next run's start.
            kube.await_end(f"namespace/{kube.namespace}")
            sys.stderr.write(f"{what}: {runs[what].seconds:.1f} s\n")
    killed = runs["rank"].killed
    assert killed is not None
    assert len(runs["rank"].launches) == 1, "a killed rank ended the launch"
    plain = runs["undisturbed"].seconds
    result = {
        "rank_s": round(seconds_of_a_lost_rank(runs["rank"].launches[0], killed), 2),
        "pod_s": round(runs["pod"].seconds - plain, 2),
        "launcher_s": round(runs["launcher"].seconds - plain, 2),
        "repeated_trials": sum(repeated(each.lines, each.launches) for each in runs.values()),
    }
    print(json.dumps({"bench": "recovery", **result, "undisturbed_s": round(plain, 2), "trials": TRIALS}))


def run(kube: Kube, folder: Path, kill: Kill) -> Run:
    volume = volume_in(kube, folder)
    kube.apply(steady_code(), steady(NAME, trials=TRIALS, output={"persistentVolumeClaim": {"claimName": "models"}}))
    await_told(kube, NAME, 1)
    began = time.monotonic()
    await_told(kube, NAME, HALFWAY)
    killed = kill(kube)
    await_told(kube, NAME, TRIALS)
    seconds = time.monotonic() - began
    done = kube.await_object("qtune", NAME, has_ended, "complete")
    assert is_true("Complete")(done), done["status"]
    lines = lines_of(kube.get("configmap", journal_configmap(NAME)).get("data"))
    launches = read((volume / NAME / "timeline.jsonl").read_text().splitlines())
    kube.run("delete", "persistentvolume", "-l", TEST_VOLUME, "--wait=false")
    return Run(seconds, lines, launches, killed)


if __name__ == "__main__":
    main()
