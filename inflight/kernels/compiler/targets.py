"""What the compiler knows of GPU architectures."""

import re
from dataclasses import dataclass

from inflight.errors import InflightError

# Shared memory that one thread block may have, in bytes: CUDA C++ Programming Guide, "Technical Specifications per
# Compute Capability".
_SHARED_MEMORY = {
    80: 163 * 1024,
    86: 99 * 1024,
    87: 163 * 1024,
    89: 99 * 1024,
    90: 227 * 1024,
    100: 227 * 1024,
    103: 227 * 1024,
    120: 99 * 1024,
}

FIRST_WITH_PROGRAMMATIC_LAUNCH = 90


@dataclass(frozen=True, order=True)
class Target:
    """A compute capability: 90 is 9.0."""

    capability: int

    @property
    def name(self) -> str:
        return f"sm_{self.capability}"

    @property
    def has_programmatic_launch(self) -> bool:
        return self.capability >= FIRST_WITH_PROGRAMMATIC_LAUNCH

    @property
    def shared_memory_limit(self) -> int:
        return _SHARED_MEMORY[self.capability]


def parse_targets(text: str) -> list[Target]:
    """ "sm_80,sm_90" → targets, ascending. Raises InflightError for one that is unknown."""
    targets = set()
    for name in text.split(","):
        match = re.fullmatch(r"sm_(\d+)", name.strip())
        if match is None or int(match.group(1)) not in _SHARED_MEMORY:
            known = ", ".join(f"sm_{capability}" for capability in _SHARED_MEMORY)
            raise InflightError(f"--target: {name.strip()!r} is not a known target; known are {known}")
        targets.add(Target(int(match.group(1))))
    return sorted(targets)
