"""CPU time, memory and descriptors of a process and its descendants, from Linux's /proc."""

import os
import re
from collections import Counter
from collections.abc import Mapping
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
    """peak: resident at most so far; resident: now; anonymous: of it, what is no file's and not shared (heaps, stacks);
    proportional: resident, pages divided among those that share them."""
    status = _kib_fields(Path(f"/proc/{pid}/status"))
    return {
        "peak": status["VmHWM"],
        "resident": status["VmRSS"],
        "anonymous": status["RssAnon"],
        "proportional": _kib_fields(Path(f"/proc/{pid}/smaps_rollup"))["Pss"],
    }


def descriptors(pid: int, ports: Mapping[int, str]) -> Counter[str]:
    """How many of each kind a process holds: "http ESTABLISHED" and so on for TCP sockets of the local `ports`, others
    by the port's absence, "unix", "pipe", "eventpoll", "file" …"""
    sockets = _sockets(pid, ports)
    kinds: Counter[str] = Counter()
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            target = os.readlink(descriptor)
        except FileNotFoundError:  # closed meanwhile
            continue
        if match := re.fullmatch(r"socket:\[(\d+)\]", target):
            kinds[sockets.get(match[1], "socket")] += 1
        elif match := re.match(r"anon_inode:\[?(\w+)|(\w+):\[\d+\]", target):
            kinds[match[1] or match[2]] += 1
        else:
            kinds["file"] += 1
    return kinds


# https://github.com/torvalds/linux/blob/master/include/net/tcp_states.h
_TCP_STATES = (
    "? ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN CLOSING".split()
)


def _sockets(pid: int, ports: Mapping[int, str]) -> dict[str, str]:
    """Inode → kind."""
    kinds = {}
    for protocol in ("tcp", "tcp6"):
        for line in _read(Path(f"/proc/{pid}/net/{protocol}")).splitlines()[1:]:
            fields = line.split()
            name = ports.get(int(fields[1].rpartition(":")[2], 16), protocol)
            kinds[fields[9]] = f"{name} {_TCP_STATES[int(fields[3], 16)]}"
    for line in _read(Path(f"/proc/{pid}/net/unix")).splitlines()[1:]:
        kinds[line.split()[6]] = "unix"
    return kinds


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
