"""The available memory: the smallest limit of machine, control groups and process decides."""

import os
from pathlib import Path

import pytest

from charrnn.io.memory import UNKNOWN, available_memory

resource = pytest.importorskip("resource")  # not on Windows

GB = 1 << 30
MACHINE = {"proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\nSwapFree: 1048576 kB\n"}  # 8 GB and 1 GB


def available(root: Path, files: dict[str, str]) -> float:
    """Return the available gigabytes of a machine with these system files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return available_memory(root) / GB


def group_v2(path: str, limit: str, used: float, cached: float = 0) -> dict[str, str]:
    directory = f"sys/fs/cgroup/{path}"
    return {
        f"{directory}/memory.max": f"{limit}\n",
        f"{directory}/memory.current": f"{int(used * GB)}\n",
        f"{directory}/memory.stat": f"anon 7\ninactive_file {int(cached * GB)}\nactive_file 0\n",
    }


def test_free_memory_and_swap_of_the_machine_are_available(tmp_path: Path) -> None:
    assert available(tmp_path, MACHINE) == 9


@pytest.mark.parametrize("limited", ["user/job", "user", ""])
def test_the_limit_of_a_group_or_of_a_group_above_counts(limited: str, tmp_path: Path) -> None:
    groups: dict[str, str] = {}
    for path in ("user/job", "user", ""):
        groups |= group_v2(path, str(4 * GB) if path == limited else "max", used=1)
    assert available(tmp_path, {**MACHINE, "proc/self/cgroup": "0::/user/job\n", **groups}) == 3


def test_a_container_that_shows_its_group_at_the_top_is_limited(tmp_path: Path) -> None:
    files = {**MACHINE, "proc/self/cgroup": "0::/docker/abc\n", **group_v2("", str(2 * GB), used=0.5)}
    assert available(tmp_path, files) == 1.5


def test_cached_files_of_a_group_count_as_available(tmp_path: Path) -> None:
    files = {**MACHINE, "proc/self/cgroup": "0::/job\n", **group_v2("job", str(4 * GB), used=3.5, cached=2)}
    assert available(tmp_path, files) == 2.5


def test_the_limit_of_a_group_of_version_1_counts(tmp_path: Path) -> None:
    directory = "sys/fs/cgroup/memory/job"
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/job/inner\n0::/\n",
        f"{directory}/memory.limit_in_bytes": f"{2 * GB}",
        f"{directory}/memory.usage_in_bytes": f"{GB}",
        f"{directory}/memory.stat": f"inactive_file 0\ntotal_inactive_file {GB // 4}\n",
    }
    assert available(tmp_path, MACHINE | files) == 1.25


def test_a_group_above_its_limit_leaves_nothing(tmp_path: Path) -> None:
    files = {**MACHINE, "proc/self/cgroup": "0::/job\n", **group_v2("job", str(GB), used=2)}
    assert available(tmp_path, files) == 0


@pytest.mark.parametrize(("limit", "field"), [(resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)])
def test_a_limit_of_the_process_counts(limit: int, field: int, tmp_path: Path) -> None:
    sizes = ["0"] * 7
    sizes[field] = str(GB // resource.getpagesize())
    before = resource.getrlimit(limit)
    resource.setrlimit(limit, (1 << 42, before[1]))  # far above what this process uses
    try:
        assert available(tmp_path, {"proc/self/statm": " ".join(sizes)}) <= (1 << 42) / GB - 1
    finally:
        resource.setrlimit(limit, before)


def test_damaged_system_files_are_ignored(tmp_path: Path) -> None:
    files = {
        **MACHINE,
        "proc/self/cgroup": "0::/job\nnonsense\n",
        **group_v2("job", "-1", used=1),
        "sys/fs/cgroup/memory.max": "",
    }
    assert available(tmp_path, files) == 9


def test_a_system_that_reports_nothing_limits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr("sys.platform", "win32")
    limits = (resource.getrlimit(limit)[0] for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    if all(limit == resource.RLIM_INFINITY for limit in limits):
        assert available_memory(tmp_path) == UNKNOWN


def test_the_memory_of_this_machine_is_plausible() -> None:
    assert 1 << 20 < available_memory() < 1 << 50
