"""What counts as a mount of the cluster."""

from pathlib import Path

from tests.cluster.mounts import Mount, below, parse

TABLE = """\
proc /proc proc rw 0 0
tmpfs /run/quantuner tmpfs rw 0 0
overlay /run/quantuner/rootfs\\040one overlay rw 0 0
tmpfs /run/quantuner-other tmpfs rw 0 0
cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0
"""


def test_a_line_gives_mount_point_and_kind_with_escapes_resolved() -> None:
    assert parse(TABLE)[2] == Mount("/run/quantuner/rootfs one", "overlay")


def test_mounts_below_a_folder_come_innermost_first() -> None:
    assert below(parse(TABLE), [Path("/run/quantuner")]) == ["/run/quantuner/rootfs one", "/run/quantuner"]


def test_a_folder_with_the_same_beginning_is_another_folder() -> None:
    assert "/run/quantuner-other" not in below(parse(TABLE), [Path("/run/quantuner")])
