"""What one operator costs an API server, and how far behind it is, while many searches tell trials.

The searches' journals are written by this process, as their launchers would; their pods ask for a node that there is
none of. The operator, mpi-operator and the API server are real. The last line is one JSON object: requests are the
operator's own but its watches, the lag is that of a status behind the journal's last line.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families as families

from quantuner.api import names
from quantuner.api.journal import Launched, Record, Trial, TrialState, encode, line_key
from quantuner.controller.cluster import Cluster
from quantuner.controller.objects import CONFIGMAP, TUNING
from tests.cluster import ensure_up
from tests.e2e.kube import Kube
from tests.e2e.release import fresh_namespace
from tests.operator.access import administrator, grant, write_kubeconfig
from tests.operator.process import OperatorProcess

SEARCHES = 10
TRIALS = 60
TRIAL_SECONDS = 0.5
IDLE_SECONDS = 20.0
REST_SECONDS = 5.0
POLL_SECONDS = 0.05
NODE = {"nodeSelector": {"quantuner.dev/bench": "no-such-node"}}
NAMES = [f"load-{number}" for number in range(SEARCHES)]
LAUNCHED = Launched(search="s", model="m", ops=4, ranks=2, hosts=("a", "b"), time="2026-11-30T12:00:00Z")


def main() -> None:
    cluster = ensure_up()
    os.environ["KUBECONFIG"] = str(cluster.kubeconfig)
    with fresh_namespace(administrator(cluster), "bench") as kube, tempfile.TemporaryDirectory() as folder:
        kubeconfig = write_kubeconfig(Path(folder) / "operator.conf", kube.kubeconfig, grant(kube))
        operator = OperatorProcess(kubeconfig, kube.namespace, Path(folder) / "operator.log")
        operator.start()
        try:
            operator.await_health()
            print(json.dumps({"bench": "operator", **measure(kube, operator)}))
        finally:
            operator.stop()
    kube.await_end(f"namespace/{kube.namespace}")  # searches that are there keep the next run from starting


def measure(kube: Kube, operator: OperatorProcess) -> dict[str, float]:
    kube.apply(*(tuning(name) for name in NAMES))
    for name in NAMES:
        kube.await_object("configmap", names.journal_configmap(name), bool, "created")
    sys.stderr.write(f"{SEARCHES} searches are there; what they bring about is waited for\n")
    before = rest(operator)
    sys.stderr.write(f"idle for {IDLE_SECONDS:.0f} s\n")
    time.sleep(IDLE_SECONDS)
    rested = read(operator)
    sys.stderr.write(f"{SEARCHES} searches tell {TRIALS} trials each\n")
    began = time.monotonic()
    lags = asyncio.run(search(kube.namespace))
    seconds = time.monotonic() - began
    after = read(operator)
    return {
        "searches": SEARCHES,
        "trials_per_s": round(SEARCHES * TRIALS / seconds, 1),
        "requests_per_s": round((after["requests"] - rested["requests"]) / seconds, 1),
        "idle_requests_per_s": round((rested["requests"] - before["requests"]) / IDLE_SECONDS, 2),
        "lag_median_s": round(statistics.median(lags), 2),
        "lag_max_s": round(max(lags), 2),
        "cpu": round((after["cpu"] - rested["cpu"]) / seconds, 2),
        "memory_mib": round(after["memory"] / 2**20),
    }


def rest(operator: OperatorProcess) -> dict[str, float]:
    """What `read` says once the operator has had nothing to do for a while."""
    before, now = -1.0, read(operator)
    while now["requests"] != before:
        before = now["requests"]
        time.sleep(REST_SECONDS)
        now = read(operator)
    return now


def tuning(name: str) -> dict[str, Any]:
    criterion = {"maxTrials": TRIALS}
    spec = {"task": {"entrypoint": "task:make"}, "workers": 1, "template": NODE, "tuningCriterion": criterion}
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": name}, "spec": spec}


def read(operator: OperatorProcess) -> dict[str, float]:
    """Requests so far, CPU seconds so far, and bytes of memory."""
    samples = [sample for family in families(operator.metrics()) for sample in family.samples]

    def total(name: str) -> float:
        return sum(sample.value for sample in samples if sample.name == name)

    return {
        "requests": total("quantuner_api_requests_total"),
        "cpu": total("process_cpu_seconds_total"),
        "memory": total("process_resident_memory_bytes"),
    }


async def search(namespace: str) -> list[float]:
    """All searches at once; of each the seconds from its last trial to a status that counts it."""
    cluster = await Cluster.connect()
    try:
        return await asyncio.gather(*(tell(cluster, namespace, name) for name in NAMES))
    finally:
        await cluster.close()


async def tell(cluster: Cluster, namespace: str, name: str) -> float:
    records: list[Record] = [LAUNCHED]
    records += [
        Trial(index=i, digest=f"d{i}", state=TrialState.COMPLETE, accuracy=0.9, seconds=0.2) for i in range(TRIALS + 1)
    ]
    due = time.monotonic()
    for index, record in enumerate(records):
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        data = {line_key(index): encode(record)}
        await cluster.merge(CONFIGMAP, namespace, names.journal_configmap(name), {"data": data})
        due += TRIAL_SECONDS
    told = time.monotonic()
    while True:
        body = await cluster.get(TUNING, namespace, name)
        if body is not None and body.get("status", {}).get("trials", {}).get("completed") == TRIALS:
            return time.monotonic() - told
        await asyncio.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
