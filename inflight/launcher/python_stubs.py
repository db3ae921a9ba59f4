"""The processes in which tritonserver's Python models run, and which of them have died.

Triton 2.51 neither restarts such a process nor tells anybody: it stays there as a zombie, the model's requests fail
one by one, each after up to 30 s, and the server says that it is ready.
"""

from contextlib import suppress
from pathlib import Path

_STUB = "triton_python_b"  # its process's name: 15 characters of triton_python_backend_stub
_INSTANCE_ARGUMENT = 8  # of the stub's command line: MODEL_GROUP_INSTANCE


class PythonStubs:
    """The stubs of one tritonserver, looked at from time to time."""

    def __init__(self, server: int):
        """server: process id."""
        self._server = server
        self._instances: dict[int, str] = {}  # by process id, taken while they live
        self._dead: set[int] = set()

    def find_dead(self) -> list[str]:
        """The model instances whose process was dead in this look and the last one: a model that is unloaded leaves a
        zombie too, but only for a moment."""
        dead = set()
        for process in _children(self._server):
            name, state = _name_and_state(process)
            if name != _STUB:
                continue
            if state in "ZX":
                dead.add(process)
            elif process not in self._instances:
                self._instances[process] = _instance(process)
        lasting, self._dead = dead & self._dead, dead
        return sorted(self._instances.get(process, f"process {process}") for process in lasting)


def _children(process: int) -> list[int]:
    """The processes that any thread of `process` has started."""
    found: list[int] = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, file.read_text().split())
    return found


def _name_and_state(process: int) -> tuple[str, str]:
    """Empty for a process that is gone."""
    try:
        name, _, rest = Path(f"/proc/{process}/stat").read_text(errors="replace").partition("(")[2].rpartition(")")
    except OSError:
        return "", ""
    return name, rest.split()[0]


def _instance(process: int) -> str:
    arguments: list[str] = []
    with suppress(OSError):
        arguments = Path(f"/proc/{process}/cmdline").read_text(errors="replace").split("\0")
    return arguments[_INSTANCE_ARGUMENT] if len(arguments) > _INSTANCE_ARGUMENT else f"process {process}"
