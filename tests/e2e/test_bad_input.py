"""What a mistake gets: phase Failed, a reason to act on, the traceback in `kubectl describe`, nothing left running."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from quantuner.api.conditions import Failure
from tests.e2e.kube import Kube, condition, has_ended, has_succeeded, is_true
from tests.e2e.release import Release, fresh_namespace
from tests.e2e.tunings import configmap, example, history

pytestmark = pytest.mark.cluster


MODEL = """
import torch
from quantuner import Task
torch.manual_seed(0)
DATA = [(torch.randn(8, 4), torch.zeros(8)) for _ in range(2)]
"""
RETURNS = """
def task():
    return Task(model=torch.nn.Linear(4, 2), calib_dataloader=DATA, eval_func=lambda m: {})
"""
ON_RANK_1 = """\
    if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
        raise OSError("no data on this host")
"""


@dataclass(frozen=True)
class Mistake:
    name: str
    reason: Failure
    code: str
    says: tuple[str, ...]
    """Parts of the condition's message."""
    describe: str
    """Part of `kubectl describe`: of the traceback where the user's code raised, else of what to do."""
    spec: dict[str, Any] = field(default_factory=dict)


MISTAKES = [
    Mistake(
        "import-fails",
        Failure.TASK_IMPORT_FAILED,
        "import nowhere_to_be_found",
        ("No module named 'nowhere_to_be_found'", "bad.py:1"),
        "import nowhere_to_be_found",
    ),
    Mistake(
        "no-callable",
        Failure.TASK_CALLABLE_MISSING,
        "def other(): ...",
        ("'task'", "other"),
        "such callable; it has other",
    ),
    Mistake(
        "evaluation-raises",
        Failure.EVALUATION_FAILED,
        MODEL + RETURNS.format("1 / 0"),
        ("ZeroDivisionError", "bad.py:8"),
        "ZeroDivisionError",
    ),
    Mistake(
        "worker-raises",
        Failure.TASK_RAISED,
        MODEL + "import os\n" + RETURNS.format("1.0").replace("    return", ON_RANK_1 + "    return"),
        ("OSError: no data on this host", "(on rank 1)"),
        "no data on this host",
    ),
    Mistake(
        "no-number",
        Failure.EVALUATION_NOT_A_NUMBER,
        MODEL + RETURNS.format("'good'"),
        ("one number", "'good'"),
        "return the accuracy as a float",
    ),
    Mistake(
        "not-capturable",
        Failure.MODEL_NOT_CAPTURABLE,
        MODEL
        + """
class Branch(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else x

def task():
    return Task(model=Branch(4, 4), calib_dataloader=DATA, eval_func=lambda m: 1.0)
""",
        ("torch.export",),
        "x.sum() > 0",
    ),
    Mistake(
        "unknown-strategy",
        Failure.UNKNOWN_STRATEGY,
        MODEL + RETURNS.format("1.0"),
        ("'basik'", "basic"),
        "did you mean basic?",
        spec={"tuningCriterion": {"strategy": "basik"}},
    ),
]


WAITED_FOR = Mistake(
    "no-image",
    Failure.IMAGE_PULL_FAILED,
    "",
    ("localhost/no-such-image:1",),
    "localhost/no-such-image:1",
    spec={"image": "localhost/no-such-image:1"},
)


def apply(kube: Kube, mistake: Mistake) -> None:
    kube.apply(
        configmap("bad-task", bad=mistake.code),
        example(
            mistake.name,
            task={"entrypoint": "bad:task", "source": {"configMap": {"name": "bad-task"}}},
            workers=1,
            **mistake.spec,
        ),
    )


@pytest.fixture(scope="module")
def waiting(release: Release) -> Iterator[Kube]:
    """Where the mistake that is given up after a minute was made, before all others are looked at."""
    with fresh_namespace(release.kube) as kube:
        apply(kube, WAITED_FOR)
        yield kube


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.name)
def test_a_mistake_ends_in_a_condition_to_act_on(kube: Kube, waiting: Kube, mistake: Mistake) -> None:
    apply(kube, mistake)
    ends_in_a_condition_to_act_on(kube, mistake)


def test_an_image_that_is_nowhere_ends_in_a_condition_to_act_on(waiting: Kube) -> None:
    ends_in_a_condition_to_act_on(waiting, WAITED_FOR)


def ends_in_a_condition_to_act_on(kube: Kube, mistake: Mistake) -> None:
    body = kube.await_object("qtune", mistake.name, has_ended, "failed")
    assert body["status"]["phase"] == "Failed"
    assert not is_true("Complete")(body)
    failed = condition(body, "Failed")
    assert failed["reason"] == mistake.reason, failed
    for part in mistake.says:
        assert part in failed["message"]
    kube.await_end(f"pod/{mistake.name}-worker-0")
    for pod in kube.items("pods", "-l", "training.kubeflow.org/job-role=launcher"):  # kept for its logs, ended
        kube.await_object("pod", pod["metadata"]["name"], has_succeeded, "ended well")
    assert not [p for p in kube.items("pods") if p["status"]["phase"] in ("Pending", "Running")]
    events = kube.run("describe", "qtune", mistake.name).partition("\nEvents:")[2]
    assert re.search(rf"Warning\s+{mistake.reason}\s", events), events
    assert mistake.describe in events, "the event says it, not the condition alone"
    if mistake is not WAITED_FOR:
        assert history(kube, mistake.name).end is not None, "what was recorded is kept"
