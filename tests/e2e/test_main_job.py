"""The main job on real pods: apply, search on three hosts, and the same answer everywhere it is told."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from quantuner.api.journal import Finished, Outcome
from quantuner.api.names import result_configmap
from quantuner.api.spec import TaskRef
from quantuner.engine import artifact
from quantuner.engine.engine import use_threads
from quantuner.engine.entrypoint import load_task
from quantuner.engine.evaluate import evaluate
from tests.chart import dashboard
from tests.e2e.kube import Kube, condition, has_ended, is_true
from tests.e2e.patience import PATIENCE_SECONDS, eventually
from tests.e2e.prometheus import Prometheus
from tests.e2e.release import TEST_VOLUME, Release
from tests.e2e.tunings import EXAMPLE, example, example_code, history, local_history, told
from tests.e2e.volumes import volume_in

pytestmark = pytest.mark.cluster


def test_apply_to_complete(kube: Kube, prometheus: Prometheus, release: Release, tmp_path: Path) -> None:
    volume = volume_in(kube, tmp_path)
    body = example(output={"persistentVolumeClaim": {"claimName": "models"}})
    kube.apply(example_code(), body)
    done = kube.await_object("qtune", "digits", has_ended, "complete")
    assert is_true("Complete")(done), done["status"]
    status, journal = done["status"], history(kube, "digits")

    # Rank 0 in the launcher pod, the slaves in two other pods.
    (launch,) = journal.launches
    assert launch.hosts[0].startswith("digits-launcher")
    assert sorted(launch.hosts[1:]) == ["digits-worker-0", "digits-worker-1"]
    assert {t.rank for t in journal.tried} <= {1, 2}  # one that is warm may take over from one that is not

    # The status says what the journal says.
    assert isinstance(journal.end, Finished)
    assert journal.end.outcome is Outcome.TARGET_MET
    winner = journal.trials[journal.end.best or 0]
    assert status["baseline"]["accuracy"] == journal.trials[0].accuracy
    assert (status["best"]["trial"], status["best"]["accuracy"]) == (winner.index, winner.accuracy)
    assert winner.index > 1, "the example must show a search, not a first-trial win"
    # Which ops fall back depends on the processor, whose last bits training multiplies.
    assert "fp32" in status["best"]["config"]["exceptions"].values()
    assert status["trials"] == {"completed": len(journal.tried), "failed": 0, "running": 0, "max": 60}
    assert status["observedGeneration"] == done["metadata"]["generation"]
    assert condition(done, "TargetMet")["status"] == "True"
    assert status["best"]["configRef"]["name"] == result_configmap("digits")
    best = yaml.safe_load(kube.get("configmap", result_configmap("digits"))["data"]["best.yaml"])
    assert best["trial"] == winner.index

    # So does Prometheus, and every query of the dashboard has data.
    labels = f'{{namespace="{kube.namespace}",name="digits"}}'
    eventually(lambda: prometheus.value(f"quantuner_best_accuracy{labels}") == winner.accuracy, "best accuracy")
    assert prometheus.value(f"quantuner_baseline_accuracy{labels}") == journal.trials[0].accuracy
    assert prometheus.value(f'quantuner_trials_total{{outcome="complete",{labels[1:]}') == len(journal.tried)
    assert prometheus.value(f"quantuner_trial_duration_seconds_count{labels}") == len(journal.tried)
    for title, expr in dashboard.queries(dashboard.load()):
        assert prometheus.query(expr), f"dashboard query without data: {title}: {expr}"

    # The saved model has the recorded accuracy, here as there.
    use_threads(1)
    task = load_task(TaskRef("digits:task"), EXAMPLE)
    assert task.eval_func is not None
    accuracy, _ = evaluate(artifact.load(volume / "digits" / "model"), task.eval_func)
    assert accuracy == winner.accuracy

    # The laptop's search is the same search.
    manifest = tmp_path / "tuning.yaml"
    manifest.write_text(yaml.safe_dump(body))
    _run_here(manifest, tmp_path / "workspace")
    local = local_history(tmp_path / "workspace")
    assert told(local) == told(journal)
    assert local.launches[0].search == launch.search

    # Nothing keeps running, and deleting the resource takes all with it.
    assert not [p for p in kube.items("pods") if p["status"]["phase"] in ("Pending", "Running")]
    kube.run("delete", "qtune", "digits")
    for kind in ("mpijob", "serviceaccount/digits-tuner", "configmap/digits-journal", "role/digits-tuner"):
        kube.await_end(kind if "/" in kind else f"{kind}/digits")
    eventually(lambda: not prometheus.query(f"quantuner_best_accuracy{labels}"), "series of a deleted resource gone")
    kube.run("delete", "persistentvolume", "-l", TEST_VOLUME, "--wait=false")


def _run_here(manifest: Path, workspace: Path) -> None:
    command = [sys.executable, "-m", "quantuner.cli", "run", str(manifest), "--workers", "2"]
    done = subprocess.run(
        [*command, "--code", str(EXAMPLE), "--workspace", str(workspace)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
