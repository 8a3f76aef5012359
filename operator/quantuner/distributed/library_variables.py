"""Variables that libraries read once, when they are loaded: what was imported under others is of no use to a rank."""

from collections.abc import Collection, Mapping

_PREFIXES = (
    *("OMP_", "KMP_", "GOMP_", "MKL_", "MKLDNN_", "OPENBLAS_", "BLIS_", "GOTO_", "NUMEXPR_"),
    *("TORCH", "PYTORCH_", "ATEN_", "AOTI", "DNNL_", "ONEDNN_", "CUDA_", "CUBLAS_", "CUDNN_", "NPY_"),
    *("AOT_", "KINETO_", "LRU_CACHE_", "THP_"),
    *("MALLOC_", "GLIBC_", "LD_", "PYTHON"),
)
_HARMLESS = ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")
"""Of the image; a rank that sshd starts has not got them, and computes the same."""
_PATHS = "LD_LIBRARY_PATH"


def is_read_by_libraries(name: str) -> bool:
    return name.startswith(_PREFIXES) and name not in _HARMLESS


def differing(server: Mapping[str, str], rank: Mapping[str, str]) -> list[str]:
    """Names of the variables that libraries read and that have other values in a rank, sorted."""
    names = filter(is_read_by_libraries, server.keys() | rank.keys())
    ours, theirs = _without_open_mpi(server, rank), _without_open_mpi(rank, rank)
    return sorted(name for name in names if ours.get(name) != theirs.get(name))


def without(environment: Mapping[str, str], kept: Collection[str]) -> dict[str, str]:
    """An environment without the variables that libraries read, but for those of these names."""
    return {name: value for name, value in environment.items() if name in kept or not is_read_by_libraries(name)}


def _without_open_mpi(environment: Mapping[str, str], rank: Mapping[str, str]) -> Mapping[str, str | None]:
    """mpirun puts its own libraries, which a rank loads by itself, in front of every rank's paths, several times."""
    own = f"{rank.get('OPAL_PREFIX')}/lib"
    paths = [path for path in environment.get(_PATHS, "").split(":") if path and path != own]
    return {**environment, _PATHS: ":".join(paths) or None}
