"""A search whose trials take a known time and never meet the target: it always runs to its last trial."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from quantuner.api.journal import History, lines_of
from quantuner.api.names import journal_configmap
from tests.e2e.kube import Kube, Object
from tests.e2e.patience import PATIENCE_SECONDS
from tests.e2e.tunings import EXAMPLE, POD_RESOURCES, configmap, example, local_history

TRIALS = 40
WAITING = '''
"""The digits example with evaluations that also wait, for as long as the pod's environment says."""

import dataclasses
import os
import time

import digits


def task():
    fast = digits.task()
    seconds = float(os.environ.get("TRIAL_SECONDS", "0"))

    def accuracy(model):
        time.sleep(seconds)
        return fast.eval_func(model)

    return dataclasses.replace(fast, eval_func=accuracy)
'''
FILES = {"digits": (EXAMPLE / "digits.py").read_text(), "waiting": WAITING}


def steady(name: str, seconds: float = 0.5, trials: int = TRIALS, **spec: object) -> Object:
    """The resource; a trial waits for `seconds`, but not without a cluster, where nobody sets TRIAL_SECONDS."""
    return example(
        name,
        task={"entrypoint": "waiting:task", "source": {"configMap": {"name": "digits-task"}}},
        accuracyCriterion={"criterion": "absolute", "tolerableLoss": -1.0},
        tuningCriterion={"strategy": "random", "maxTrials": trials},
        template={"resources": POD_RESOURCES, "env": [{"name": "TRIAL_SECONDS", "value": str(seconds)}]},
        **spec,
    )


def steady_code() -> Object:
    return configmap("digits-task", **FILES)


def run_here(body: Object, folder: Path) -> History:
    """The same resource without a cluster, in one process that nothing happens to and that waits for nothing."""
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(text)
    manifest, workspace = folder / "tuning.yaml", folder / "workspace"
    manifest.write_text(yaml.safe_dump(body))
    command = [sys.executable, "-m", "quantuner.cli", "run", str(manifest), "--workers", "0"]
    done = subprocess.run(
        [*command, "--code", str(folder), "--workspace", str(workspace)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return local_history(workspace)


def await_told(kube: Kube, name: str, count: int) -> History:
    """The journal as soon as it tells `count` trials. Asks neither the operator nor the status."""
    body = kube.await_object("configmap", journal_configmap(name), _tells(count), f"at trial {count}")
    return _history(body)


def await_launch(kube: Kube, name: str, count: int) -> History:
    """The journal as soon as it has `count` launches."""

    def holds(body: Object) -> bool:
        return len(_history(body).launches) >= count

    body = kube.await_object("configmap", journal_configmap(name), holds, f"at launch {count}")
    return _history(body)


def _tells(count: int) -> Callable[[Object], bool]:
    return lambda body: len(_history(body).tried) >= count


def _history(journal: Object) -> History:
    return History.replay(lines_of(journal.get("data")))
