"""Returns the memory that is available to this process, under the limits of machine, containers and process."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

UNKNOWN = 1 << 47  # bytes, the address space of a process; for systems that do not report their memory
_ROOT = Path("/")


def available_memory(root: Path = _ROOT) -> int:
    """Return the available memory in bytes, which is what the smallest limit leaves.

    Args:
        root: Directory that contains ``proc`` and ``sys``.
    """
    return max(0, min([*_of_machine(root), *_of_control_groups(root), *_of_process(root)], default=UNKNOWN))


def _of_machine(root: Path) -> Iterator[int]:
    """Yield the free memory and swap space of the machine. Memory that can be freed at once counts as free."""
    fields = _fields(root / "proc/meminfo")
    if "MemAvailable:" in fields:
        yield (fields["MemAvailable:"] + fields.get("SwapFree:", 0)) << 10
    elif sys.platform != "win32":
        with suppress(OSError, ValueError):
            yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _of_control_groups(root: Path) -> Iterator[int]:
    """Yield what the limits of the control group of this process, and of the groups that contain it, leave.

    In a container, the top directory often is the group of the container, whatever path the system reports.
    """
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:  # version 2
            top, files = mount, ("memory.max", "memory.current", "inactive_file", "active_file")
        elif "memory" in controllers.split(","):
            top = mount / "memory"
            files = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file"
        else:
            continue
        group = top / path.lstrip("/")
        for directory in (group, *group.parents):
            limit, used = _number(directory / files[0]), _number(directory / files[1])
            if limit is not None and used is not None:
                cached = _fields(directory / "memory.stat")  # the system frees the memory of cached files on demand
                yield limit - used + sum(cached.get(name, 0) for name in files[2:])
            if directory == top:
                break


def _of_process(root: Path) -> Iterator[int]:
    """Yield what the limits on the address space and on the data of this process leave."""
    with suppress(ImportError):  # not on Windows
        import resource

        sizes = _text(root / "proc/self/statm").split()
        for limit, field in ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)):
            soft, _ = resource.getrlimit(limit)
            if soft != resource.RLIM_INFINITY:
                used = int(sizes[field]) * resource.getpagesize() if len(sizes) > field else 0
                yield soft - used


def _text(path: Path) -> str:
    """Return the contents of a system file, or an empty string if it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    """Return the number in a system file, or None if there is no number, for example because there is no limit."""
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _fields(path: Path) -> dict[str, int]:
    """Return the numbers of a system file with a name and a number on each line."""
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}
