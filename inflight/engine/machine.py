"""How much of this machine's memory the process may use."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can be taken without swapping: the least of what the kernel and the control groups leave.

    root: where proc and sys are.
    """
    return min([_mem_available(root), *_cgroup_available(root)])


def total_memory(root: Path = Path("/")) -> int:
    """Bytes that the process could take if nothing else ran: the machine's memory, or a control group's least limit.

    Unlike available_memory, the same from call to call.
    """
    limits = []
    for group, (limit_file, _, _) in _cgroups(root):
        with suppress(OSError, ValueError):  # no such group, or "max"
            limits.append(int((group / limit_file).read_text(encoding="utf-8")))
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *limits])


def _mem_available(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cgroup_available(root: Path) -> list[int]:
    """What each control group above this process leaves of its limit, version 2 or 1.

    Page cache that the kernel would drop first does not count as used.
    """
    return [left for group, files in _cgroups(root) if (left := _left(group, *files)) is not None]


def _cgroups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Each control group's directory, which may not be there, its files of limit and usage, and page cache's key."""
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            group, files = mount, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            group = mount / "memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # Inside a container the path may be the host's; the container's own group is then the mount itself
        for depth in Path(path.lstrip("/")), *Path(path.lstrip("/")).parents:
            yield group / depth, files


def _left(group: Path, limit_file: str, usage_file: str, cache_key: str) -> int | None:
    try:
        limit = int((group / limit_file).read_text(encoding="utf-8"))
        usage = int((group / usage_file).read_text(encoding="utf-8"))
        statistics = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):  # no such group, or "max"
        return None
    return max(0, limit - usage + int(statistics.get(cache_key, 0)))
