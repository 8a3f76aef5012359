"""What the tests on a cluster read in an object."""

from typing import Any

import pytest

from tests.e2e.kube import is_true


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, False),
        ({"conditions": None}, False),  # of a CRD that is new
        ({"conditions": [{"type": "Other", "status": "True"}]}, False),
        ({"conditions": [{"type": "Established", "status": "False"}]}, False),
        ({"conditions": [{"type": "Established", "status": "True"}]}, True),
    ],
)
def test_a_condition_is_true_once_the_server_says_so(status: dict[str, Any], expected: bool) -> None:
    assert is_true("Established")({"status": status}) is expected
