"""What the cluster adds around a search: seconds from `kubectl apply` to the first trial and to Complete.

Runs the shipped example on the test cluster, some times one after the other; the last line is one JSON
object with the medians. `search_s` is the search's own time, from its first evaluation (the baseline's) to the
last trial told.
"""

import json
import statistics
import sys
import time

from quantuner.api.names import journal_configmap
from tests.e2e.kube import Kube, Object, has_ended, is_true
from tests.e2e.release import fresh_namespace, installed
from tests.e2e.tunings import example, example_code, history

RUNS = 3
FIRST_TRIAL_KEY = "000002"  # line 0 is the launch, line 1 the baseline


def main() -> None:
    runs = []
    with installed() as release:
        for number in range(RUNS):
            with fresh_namespace(release.kube) as kube:
                runs.append(measure(kube))
            # The end of one run's pods must not slow the next run's start.
            kube.await_end(f"namespace/{kube.namespace}")
            sys.stderr.write(f"run {number + 1} of {RUNS}: {runs[-1]}\n")
    medians = {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}
    overhead = statistics.median(run["apply_to_complete_s"] - run["search_s"] for run in runs)
    print(json.dumps({"bench": "e2e", **medians, "overhead_s": round(overhead, 2), "runs": RUNS}))


def measure(kube: Kube) -> dict[str, float]:
    started = time.monotonic()
    kube.apply(example_code(), example())
    kube.await_object("configmap", journal_configmap("digits"), _has_first_trial, "at its first trial")
    first = time.monotonic() - started
    done = kube.await_object("qtune", "digits", has_ended, "complete")
    complete = time.monotonic() - started
    assert is_true("Complete")(done), done["status"]
    searched = history(kube, "digits").trials[-1].elapsed
    return {"apply_to_first_trial_s": first, "apply_to_complete_s": complete, "search_s": searched}


def _has_first_trial(journal: Object) -> bool:
    return FIRST_TRIAL_KEY in (journal.get("data") or {})


if __name__ == "__main__":
    main()
