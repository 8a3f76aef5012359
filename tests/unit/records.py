"""Journal records and resources for tests: the parts that a test is not about have fixed values."""

from collections.abc import Mapping
from typing import Any

from quantuner.api.journal import Launched, Trial, TrialState
from quantuner.api.spec import Tuning
from quantuner.api.validation import admit

TIME = "2026-01-02T03:04:05Z"


def launched(**changes: Any) -> Launched:
    return Launched(
        **{
            "search": "5ea4c4",
            "model": "30de1",
            "ops": 4,
            "ranks": 2,
            "hosts": ("launcher", "worker"),
            "time": TIME,
            **changes,
        }
    )


def told(index: int, accuracy: float | None, *, meets: bool = False, **changes: Any) -> Trial:
    """A trial told with this accuracy; None is a failed one."""
    state = TrialState.FAILED if accuracy is None else TrialState.COMPLETE
    error = "it failed" if accuracy is None else ""
    return Trial(
        **{
            "index": index,
            "digest": f"{index:016x}",
            "state": state,
            "accuracy": accuracy,
            "meets": meets,
            "error": error,
            **changes,
        }
    )


def manifest(spec: Mapping[str, Any] | None = None, name: str = "digits") -> dict[str, Any]:
    """A resource as its user writes it; `spec` adds to or replaces parts of a minimal one."""
    return {
        "apiVersion": "quantuner.dev/v1alpha1",
        "kind": "QuantizationTuning",
        "metadata": {"name": name},
        "spec": {"task": {"entrypoint": "digits:task"}, **(spec or {})},
    }


def tuning(spec: Mapping[str, Any] | None = None, name: str = "digits") -> Tuning:
    """The parsed resource of `manifest`."""
    return Tuning.from_body(admit(manifest(spec, name)))
