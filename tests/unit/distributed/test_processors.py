"""CPUs and devices of a rank, read from folders laid out as the kernel and its documentation show them."""

from pathlib import Path

import pytest

from quantuner.distributed.processors import Processors, cgroup_quota, share, slot_devices, take_devices

VERSION_1 = "5:memory:/pods/a\n4:cpu,cpuacct:/pods/a\n1:name=systemd:/pods/a\n"
VERSION_2 = "0::/pods/a\n"
HYBRID = f"{VERSION_1}0::/pods/a\n"


def quota_of(root: Path, cgroup: str, files: dict[str, str]) -> float | None:
    """The quota of a process that is in these cgroups, where these files lie under the mount of all cgroups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return cgroup_quota(root)


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        pytest.param(VERSION_2, {"pods/a/cpu.max": "250000 100000"}, 2.5, id="v2"),
        pytest.param(VERSION_2, {"pods/a/cpu.max": "max 100000"}, None, id="v2, no limit"),
        pytest.param(VERSION_2, {"cpu.max": "50000 100000"}, 0.5, id="v2, a container's own namespace"),
        pytest.param(
            VERSION_2, {"pods/a/cpu.max": "max 100000", "pods/cpu.max": "300000 100000"}, 3.0, id="v2, the pod's"
        ),
        pytest.param(
            VERSION_2, {"pods/a/cpu.max": "400000 100000", "pods/cpu.max": "300000 100000"}, 3.0, id="v2, the tightest"
        ),
        pytest.param(
            VERSION_1,
            {"cpu,cpuacct/pods/a/cpu.cfs_quota_us": "150000", "cpu,cpuacct/pods/a/cpu.cfs_period_us": "100000"},
            1.5,
            id="v1",
        ),
        pytest.param(
            VERSION_1,
            {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "200000"},
            2.0,
            id="v1, a container that sees its own cgroup as the root, by the controller's short name",
        ),
        pytest.param(
            VERSION_1, {"cpu/pods/a/cpu.cfs_quota_us": "-1", "cpu/pods/a/cpu.cfs_period_us": "100000"}, None,
            id="v1, no limit",
        ),
        pytest.param(VERSION_1, {"cpu/pods/a/cpu.cfs_quota_us": "100000"}, None, id="v1, half of the files"),
        pytest.param(HYBRID, {"unified/pods/a/cpu.max": "100000 100000"}, 1.0, id="both versions mounted"),
        pytest.param(VERSION_2, {"pods/a/cpu.max": "0 0"}, None, id="nonsense"),
        pytest.param("3:memory:/\n", {"cpu.max": "100000 100000"}, None, id="in no cgroup of CPUs"),
    ],
)  # fmt: skip
def test_the_quota_of_a_cgroup(tmp_path: Path, cgroup: str, files: dict[str, str], quota: float | None) -> None:
    assert quota_of(tmp_path, cgroup, files) == quota


def test_without_cgroups_there_is_no_quota(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None


def ranks(*hosts: tuple[str, int, set[int], float | None]) -> list[Processors]:
    """So many equal ranks on each host."""
    return [Processors(name, frozenset(cpus), quota) for name, count, cpus, quota in hosts for _ in range(count)]


EIGHT = set(range(8))


@pytest.mark.parametrize(
    ("hosts", "threads"),
    [
        pytest.param([("a", 1, EIGHT, None)], 8, id="alone"),
        pytest.param([("a", 3, EIGHT, None)], 2, id="rounded down"),
        pytest.param([("a", 1, EIGHT, 2.5)], 2, id="the quota, not the host's cores"),
        pytest.param([("a", 2, EIGHT, 6.0)], 3, id="slots share the quota"),
        pytest.param([("a", 1, {3, 5}, 6.0)], 2, id="the affinity below the quota"),
        pytest.param([("a", 1, EIGHT, 0.5)], 1, id="at least one"),
        pytest.param([("a", 9, EIGHT, None)], 1, id="more ranks than CPUs"),
        pytest.param([("a", 1, EIGHT, None), ("b", 2, EIGHT, 6.0)], 3, id="of the host with fewest"),
    ],
)
def test_all_ranks_can_compute_with_the_share_of_the_poorest(
    hosts: list[tuple[str, int, set[int], float | None]], threads: int
) -> None:
    assert share(ranks(*hosts)) == threads
    assert share(list(reversed(ranks(*hosts)))) == threads


def test_ranks_that_are_bound_to_cores_of_their_own_have_these() -> None:
    bound = ranks(("a", 1, {0, 1}, None), ("a", 1, {2, 3}, None))
    assert share(bound) == 2


def test_this_process_has_a_cpu() -> None:
    here = Processors.here("a")
    assert here.cpus
    assert share([here]) >= 1


@pytest.mark.parametrize(
    ("devices", "size", "slots"),
    [
        pytest.param("0,1,2,3", 4, ["0", "1", "2", "3"], id="one a slot"),
        pytest.param("2,5", 2, ["2", "5"], id="those the user chose"),
        pytest.param("0,1,2,3", 2, ["0,1", "2,3"], id="several a slot"),
        pytest.param("0,1,2", 2, ["0", "1"], id="one left over"),
        pytest.param("0,1", 5, ["0", "1", "0", "1", "0"], id="too few are shared"),
        pytest.param("GPU-a,GPU-b", 2, ["GPU-a", "GPU-b"], id="by their ids"),
    ],
)
def test_devices_of_the_ranks_of_a_host(devices: str, size: int, slots: list[str]) -> None:
    assert [",".join(slot_devices(devices.split(","), rank, size)) for rank in range(size)] == slots


def local(rank: int, **more: str) -> dict[str, str]:
    return {"OMPI_COMM_WORLD_LOCAL_RANK": str(rank), "OMPI_COMM_WORLD_LOCAL_SIZE": "2", **more}


@pytest.mark.parametrize(
    ("environment", "files", "visible"),
    [
        pytest.param(local(1), ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"], "1", id="as the driver names them"),
        pytest.param(local(0, CUDA_VISIBLE_DEVICES="7, 4"), ["nvidia0"], "7", id="as the user chose"),
        pytest.param(local(1), ["nvidiactl"], None, id="none"),
        pytest.param(local(1, CUDA_VISIBLE_DEVICES=""), ["nvidia0"], "", id="the user wants none"),
        pytest.param({}, ["nvidia0", "nvidia1"], None, id="without MPI all are its own"),
    ],
)
def test_a_rank_sees_the_devices_of_its_slot(
    tmp_path: Path, environment: dict[str, str], files: list[str], visible: str | None
) -> None:
    (tmp_path / "dev").mkdir()
    for name in files:
        (tmp_path / "dev" / name).touch()
    take_devices(environment, tmp_path)
    assert environment.get("CUDA_VISIBLE_DEVICES") == visible
