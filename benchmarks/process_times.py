"""CPU time and memory of a process and its descendants, from Linux's /proc."""

import os
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    """Of `pid`, in no order; not itself."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, _read(children).split()):
            found += [child, *descendants(child)]
    return found


def command(pid: int) -> str:
    return _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ")


def cpu_seconds(pid: int) -> float:
    return _cpu_seconds(Path(f"/proc/{pid}/stat"))


def thread_cpu_seconds(pid: int) -> dict[int, float]:
    """By thread id."""
    return {int(stat.parent.name): _cpu_seconds(stat) for stat in Path(f"/proc/{pid}/task").glob("*/stat")}


def memory_bytes(pid: int) -> dict[str, int]:
    """peak: resident at most so far; resident: now; proportional: now, pages divided among those that share them."""
    status = _kib_fields(Path(f"/proc/{pid}/status"))
    return {
        "peak": status["VmHWM"],
        "resident": status["VmRSS"],
        "proportional": _kib_fields(Path(f"/proc/{pid}/smaps_rollup"))["Pss"],
    }


def _cpu_seconds(stat: Path) -> float:
    fields = _read(stat).rpartition(")")[2].split()  # the name before may hold anything; 0 is field 3 of proc(5)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND if fields else 0.0


def _kib_fields(path: Path) -> dict[str, int]:
    lines = [line.split() for line in _read(path).splitlines()]
    return {words[0].rstrip(":"): 1024 * int(words[1]) for words in lines if words[-1] == "kB"}


def _read(path: Path) -> str:
    """An empty text for a process or thread that has just ended."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
