from dataclasses import dataclass, field

import pytest

from quantuner.distributed.library_variables import differing, without


@dataclass(frozen=True)
class Case:
    id: str
    server: dict[str, str]
    rank: dict[str, str]
    differing: list[str] = field(default_factory=list)


CASES = [
    Case("same", {"OMP_NUM_THREADS": "1", "HOME": "a"}, {"OMP_NUM_THREADS": "1", "HOME": "b"}),
    Case("another", {"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "2"}, ["OMP_NUM_THREADS"]),
    Case("only here, only there", {"TORCH_LOGS": "+all"}, {"LD_PRELOAD": "x.so"}, ["LD_PRELOAD", "TORCH_LOGS"]),
    Case("oneDNN's old names", {"MKLDNN_MAX_CPU_ISA": "AVX2"}, {}, ["MKLDNN_MAX_CPU_ISA"]),
    Case("of MPI", {}, {"OMPI_COMM_WORLD_RANK": "1", "OPAL_PREFIX": "/v"}),
    Case("of the image", {"PYTHONUNBUFFERED": "1"}, {"PYTHONDONTWRITEBYTECODE": "1"}),
    Case("paths of mpirun", {}, {"LD_LIBRARY_PATH": "/v/lib:/v/lib:", "OPAL_PREFIX": "/v"}),
    Case("behind the user's", {"LD_LIBRARY_PATH": "/u"}, {"LD_LIBRARY_PATH": "/v/lib:/u", "OPAL_PREFIX": "/v"}),
    Case("other paths", {}, {"LD_LIBRARY_PATH": "/v/lib:/u", "OPAL_PREFIX": "/v"}, ["LD_LIBRARY_PATH"]),
    Case("paths without mpirun", {}, {"LD_LIBRARY_PATH": "/u"}, ["LD_LIBRARY_PATH"]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_only_what_libraries_read_must_be_alike(case: Case) -> None:
    assert differing(case.server, case.rank) == case.differing


def test_what_ranks_are_not_given_is_left_out() -> None:
    pods = {"OMP_NUM_THREADS": "1", "LD_LIBRARY_PATH": "/cuda", "HOME": "h", "PYTHONUNBUFFERED": "1"}
    assert without(pods, ["OMP_NUM_THREADS"]) == {"OMP_NUM_THREADS": "1", "HOME": "h", "PYTHONUNBUFFERED": "1"}
