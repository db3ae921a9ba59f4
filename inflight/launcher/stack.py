"""How large the stacks of tritonserver's threads are.

Triton's HTTP front end parses JSON by recursion, some 80 bytes a level in 2.51: with the usual 8 MiB a body of 1 MB of
`[` ends the server. glibc gives threads the soft limit that a process starts with; a stack takes memory only as far as
it is used.
"""

import resource
from pathlib import Path

_WANTED = 256 * 2**20
_NEVER_OVERCOMMIT = "2"  # Linux: Documentation/mm/overcommit-accounting


def stack_bytes() -> int | None:
    """The soft limit to give to a server; None where it should stay: it is larger, or address space is counted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    counted = (
        resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
        or Path("/proc/sys/vm/overcommit_memory").read_text().strip() == _NEVER_OVERCOMMIT
    )
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    is_enough = soft != resource.RLIM_INFINITY and soft >= wanted  # without a limit glibc takes 2 MiB
    return None if counted or is_enough else wanted
