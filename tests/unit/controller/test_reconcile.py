"""Whole rounds of a reconciler over HTTP, with an API server that says no in every way it can."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from quantuner.api.journal import Failed, encode, line_key
from quantuner.controller.act import RefusedError
from quantuner.controller.cluster import Cluster, ClusterError
from quantuner.controller.echoes import Echoes
from quantuner.controller.metrics import PHASE, Table
from quantuner.controller.objects import CONFIGMAP, TUNING, Key
from quantuner.controller.reconcile import CONFLICT_SECONDS, Reconciler
from quantuner.controller.symptoms import Onsets
from tests.unit.controller.api_server import ApiServer
from tests.unit.controller.making import NOW, SETTINGS, resource
from tests.unit.records import launched, told

KEY = Key("ns", "digits")
FAILURE = Failed(reason="EvaluationFailed", message="a typo")
ALL = ["configmaps"] * 3 + ["mpijobs", "quantizationtunings", "rolebindings", "roles", "serviceaccounts"]


class Bench:
    """A server with one tuning, and a reconciler of it."""

    def __init__(self, server: ApiServer, cluster: Cluster) -> None:
        self.server = server
        self.cluster = cluster
        self.table = Table()
        self.echoes = Echoes()
        self._reconciler = Reconciler(cluster, SETTINGS, self.table, Onsets(lambda: 0.0), self.echoes, lambda: NOW)

    async def round(self) -> float | None:
        return await self._reconciler.reconcile(KEY)

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.server.find("quantizationtunings", "digits")["status"]
        return found

    def condition(self, type_: str) -> dict[str, Any]:
        found: dict[str, Any] = next(c for c in self.status["conditions"] if c["type"] == type_)
        return found


def run(body: Callable[[Bench], Awaitable[None]], **spec: Any) -> None:
    async def main() -> None:
        server = ApiServer()
        made = resource(**spec)
        server.objects[TUNING.path("ns", "digits")] = made
        async with server.serve() as cluster:
            await body(Bench(server, cluster))

    asyncio.run(main())


def test_a_second_round_writes_nothing() -> None:
    async def body(bench: Bench) -> None:
        await bench.round()
        assert bench.server.plurals() == ALL
        assert bench.status["phase"] == "Starting"
        await bench.round()  # sees the MPIJob, and says so
        bench.server.writes.clear()
        await bench.round()
        assert bench.server.writes == []

    run(body)


def test_what_a_round_has_written_is_an_echo_until_somebody_changes_it() -> None:
    async def body(bench: Bench) -> None:
        assert not bench.echoes.is_echo(KEY, bench.server.find("quantizationtunings", "digits"))
        await bench.round()
        assert bench.echoes.is_echo(KEY, bench.server.find("quantizationtunings", "digits"))
        bench.status["phase"] = "Complete"
        assert not bench.echoes.is_echo(KEY, bench.server.find("quantizationtunings", "digits"))

    run(body)


def test_the_resource_itself_is_never_touched_but_for_its_status() -> None:
    async def body(bench: Bench) -> None:
        before = copy.deepcopy(bench.server.find("quantizationtunings", "digits"))
        await bench.round()
        after = bench.server.find("quantizationtunings", "digits")
        assert after["spec"] == before["spec"]
        assert set(after["metadata"]) == set(before["metadata"])

    run(body)


def test_suspending_a_failed_search_forgives_the_failure_and_keeps_what_was_told() -> None:
    async def body(bench: Bench) -> None:
        await bench.round()
        lines = [encode(r) for r in (launched(), told(0, 0.9), FAILURE)]
        bench.server.find("configmaps", "digits-journal")["data"] = {line_key(i): x for i, x in enumerate(lines)}
        await bench.round()
        assert bench.condition("Failed")["reason"] == FAILURE.reason

        tuning = bench.server.find("quantizationtunings", "digits")
        for suspend in (True, False):
            tuning["spec"]["suspend"] = suspend
            for _ in range(3):
                await bench.round()
        assert bench.condition("Failed")["status"] == "False"
        assert bench.status["baseline"]["accuracy"] == 0.9
        assert bench.server.find("mpijobs", "digits")

    run(body)


def test_an_answer_that_could_not_be_written_down_is_not_lost() -> None:
    async def body(bench: Bench) -> None:
        await bench.round()
        lines = [encode(r) for r in (launched(), told(0, 0.9), FAILURE)]
        bench.server.find("configmaps", "digits-journal")["data"] = {line_key(i): x for i, x in enumerate(lines)}
        await bench.round()
        seen = bench.status["observedGeneration"]

        tuning = bench.server.find("quantizationtunings", "digits")
        tuning["metadata"]["generation"] += 2  # suspended, and going on, between two looks
        bench.server.faults["PATCH", "configmaps"] = (403, "a policy says no")
        for _ in range(2):
            with pytest.raises(RefusedError, match="a policy says no"):
                await bench.round()
        assert "a policy says no" in bench.condition("Accepted")["message"]
        assert bench.condition("Failed")["reason"] == FAILURE.reason
        assert bench.status["observedGeneration"] == seen

        bench.server.faults.clear()
        for _ in range(2):
            await bench.round()
        assert bench.condition("Failed")["status"] == "False"
        assert bench.condition("Accepted")["status"] == "True"
        assert bench.status["observedGeneration"] == seen + 2

    run(body)


def test_what_was_created_meanwhile_by_ourselves_is_success() -> None:
    async def body(bench: Bench) -> None:
        await bench.round()
        path = CONFIGMAP.path("ns", "digits-result")
        bench.server.hidden.add(path)  # read before it was written, as a killed operator's successor may

        async def reveal() -> None:
            while "POST configmaps" not in bench.server.writes:
                await asyncio.sleep(0)
            bench.server.hidden.clear()

        bench.server.writes.clear()
        revealing = asyncio.create_task(reveal())
        assert await bench.round() not in (None, CONFLICT_SECONDS)
        await revealing
        assert bench.server.plurals() == ALL

    run(body)


def test_what_was_created_meanwhile_by_others_is_looked_at_again() -> None:
    async def body(bench: Bench) -> None:
        path = CONFIGMAP.path("ns", "digits-result")
        bench.server.objects[path] = {"metadata": {"name": "digits-result", "resourceVersion": "1"}}
        bench.server.hidden.add(path)
        assert await bench.round() == CONFLICT_SECONDS
        bench.server.hidden.clear()
        await bench.round()
        assert bench.condition("Accepted")["reason"] == "NameConflict"

    run(body)


def test_without_mpi_operator_it_says_so_and_goes_on_when_it_is_there() -> None:
    async def body(bench: Bench) -> None:
        bench.server.faults["POST", "mpijobs"] = (404, "the server could not find the requested resource")
        with pytest.raises(RefusedError):
            await bench.round()
        assert bench.condition("Accepted")["reason"] == "MPIJobRefused"
        assert "install mpi-operator" in bench.condition("Accepted")["message"]
        assert bench.status["phase"] == "Pending"
        bench.server.faults.clear()
        await bench.round()
        assert bench.condition("Accepted")["status"] == "True"
        assert "mpijobs" in bench.server.plurals()

    run(body)


@pytest.mark.parametrize(
    ("plural", "reason"), [("roles", "Refused"), ("configmaps", "Refused"), ("mpijobs", "MPIJobRefused")]
)
def test_a_quota_or_missing_rights_are_said_and_tried_again(plural: str, reason: str) -> None:
    async def body(bench: Bench) -> None:
        bench.server.faults["POST", plural] = (403, "exceeded quota: gpu")
        with pytest.raises(RefusedError):
            await bench.round()
        accepted = bench.condition("Accepted")
        assert (accepted["status"], accepted["reason"]) == ("False", reason)
        assert "exceeded quota: gpu" in accepted["message"]
        assert bench.condition("Failed")["status"] == "False"

    run(body)


def test_what_is_invalid_fails_at_once_and_for_good() -> None:
    async def body(bench: Bench) -> None:
        bench.server.faults["POST", "mpijobs"] = (422, "resources.limits.cpu: Invalid value")
        await bench.round()
        assert bench.condition("Failed")["reason"] == "MPIJobRefused"
        bench.server.writes.clear()
        await bench.round()
        assert bench.server.writes == []

    run(body)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, 'admission webhook "validate.kyverno.svc" denied the request: no team label'),
        (422, "roles \"digits-tuner\" is forbidden: ValidatingAdmissionPolicy 'teams' denied request: no team label"),
    ],
)
def test_what_a_policy_denies_is_tried_again_whatever_code_it_comes_with(status: int, message: str) -> None:
    async def body(bench: Bench) -> None:
        bench.server.faults["POST", "mpijobs"] = (status, message)
        with pytest.raises(RefusedError):
            await bench.round()
        assert "no team label" in bench.condition("Accepted")["message"]
        bench.server.faults.clear()
        await bench.round()
        assert bench.server.find("mpijobs", "digits")

    run(body)


def test_what_is_not_the_mpijob_may_be_refused_and_is_tried_again() -> None:
    async def body(bench: Bench) -> None:
        bench.server.faults["POST", "configmaps"] = (422, "data: Too long")
        with pytest.raises(RefusedError):
            await bench.round()
        assert (bench.condition("Accepted")["reason"], bench.condition("Failed")["status"]) == ("Refused", "False")

    run(body)


def test_what_was_deleted_since_it_was_looked_at_is_looked_at_again() -> None:
    async def body(bench: Bench) -> None:
        await bench.round()
        bench.server.find("roles", "digits-tuner")["rules"] = []
        bench.server.faults["PATCH", "roles"] = (404, "not found")
        assert await bench.round() == CONFLICT_SECONDS

    run(body)


def test_a_failed_search_goes_on_when_its_suspension_was_not_seen() -> None:
    """Set to true and back between two looks."""

    async def body(bench: Bench) -> None:
        await bench.round()
        lines = [encode(r) for r in (launched(), told(0, 0.9), FAILURE)]
        bench.server.find("configmaps", "digits-journal")["data"] = {line_key(i): x for i, x in enumerate(lines)}
        first = bench.server.find("mpijobs", "digits")
        first["status"] = {"conditions": [{"type": "Succeeded", "status": "True"}], "completionTime": NOW}
        await bench.round()
        bench.server.find("quantizationtunings", "digits")["metadata"]["generation"] += 2
        for _ in range(3):
            await bench.round()
        assert bench.condition("Failed")["status"] == "False"
        assert bench.status["baseline"]["accuracy"] == 0.9
        assert bench.server.find("mpijobs", "digits") is not first

    run(body)


def test_a_status_that_changed_meanwhile_is_computed_anew() -> None:
    async def body(bench: Bench) -> None:
        bench.server.faults["PATCH", "quantizationtunings"] = (409, "the object has been modified")
        assert await bench.round() == CONFLICT_SECONDS

    run(body)


def test_an_event_that_may_not_be_posted_does_not_hold_up_the_status(caplog: pytest.LogCaptureFixture) -> None:
    async def body(bench: Bench) -> None:
        bench.server.faults["POST", "events"] = (403, "events is forbidden")
        await bench.round()
        assert bench.condition("Accepted")["reason"] == "TaskConfigMapMissing"
        assert "no event TaskConfigMapMissing" in caplog.text

    run(body, task={"entrypoint": "task:make", "source": {"configMap": {"name": "code"}}})


def test_a_field_that_the_clusters_crd_drops_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def body(bench: Bench) -> None:
        bench.server.drops.add("workers")
        await bench.round()
        assert "the API server dropped status.workers" in caplog.text

    run(body)


def test_a_deleted_resource_is_forgotten_and_nothing_is_created() -> None:
    async def body(bench: Bench) -> None:
        await bench.round()
        assert len(bench.table.rows()) == 1
        path = TUNING.path("ns", "digits")
        bench.server.objects[path]["metadata"]["deletionTimestamp"] = NOW
        bench.server.writes.clear()
        assert await bench.round() is None
        assert (bench.server.writes, bench.table.rows()) == ([], [])
        del bench.server.objects[path]
        assert await bench.round() is None

    run(body)


def test_a_resource_that_an_older_crd_let_through_is_rejected_in_its_status() -> None:
    async def body(bench: Bench) -> None:
        bench.server.find("quantizationtunings", "digits")["spec"]["workers"] = 0
        await bench.round()
        accepted = bench.condition("Accepted")
        assert (accepted["status"], accepted["reason"]) == ("False", "Invalid")
        assert "spec.workers" in accepted["message"]
        assert bench.server.plurals() == ["quantizationtunings"]

    run(body)


def phases(bench: Bench) -> list[str]:
    """Of which the operator's metrics say 1."""
    return [labels[0] for _, row in bench.table.rows() for f, labels, x in row.samples if f is PHASE and x == 1]


def test_the_metrics_of_a_rejected_resource_say_what_its_status_says() -> None:
    async def body(bench: Bench) -> None:
        bench.server.find("quantizationtunings", "digits")["spec"]["workers"] = 0
        await bench.round()
        assert phases(bench) == [bench.status["phase"]] == ["Pending"]

    run(body)


def test_they_do_so_where_it_was_accepted_once() -> None:
    async def body(bench: Bench) -> None:
        await bench.round()
        tuning = bench.server.find("quantizationtunings", "digits")
        tuning["spec"]["suspend"] = True
        for _ in range(3):
            await bench.round()
        bench.server.find("quantizationtunings", "digits")["spec"] |= {"suspend": False, "workers": 0}
        bench.table.forget(KEY)  # as a restart does
        await bench.round()
        assert phases(bench) == [bench.status["phase"]] == ["Suspended"]

    run(body)


def test_a_proxys_page_is_an_error_without_the_page() -> None:
    async def body(bench: Bench) -> None:
        bench.server.faults["GET", "mpijobs"] = (502, "<html>secret</html>")
        with pytest.raises(ClusterError) as caught:
            await bench.round()
        assert (caught.value.status, "secret" in str(caught.value)) == (502, False)

    run(body)


def test_no_api_server_is_an_error_that_says_so() -> None:
    async def main() -> None:
        server = ApiServer()
        async with server.serve() as cluster:
            pass
        with pytest.raises(ClusterError, match="no answer from the API server"):
            await cluster.get(TUNING, "ns", "digits")
        await cluster.close()

    asyncio.run(main())
