"""Where tritonserver is installed: its executable, backends, libraries and Python stubs."""

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from inflight.errors import InflightError

CONTAINER_ROOT = Path("/opt/tritonserver")  # in NVIDIA's containers


@dataclass(frozen=True)
class TritonInstallation:
    """One tritonserver.

    stubs holds X.Y/triton_python_backend_stub for several Python versions; None where the python backend
    comes with one stub of its own.
    """

    executable: Path
    backends: Path
    library_directories: tuple[Path, ...]
    stubs: Path | None

    @classmethod
    def of_executable(cls, executable: Path) -> "TritonInstallation":
        """Knows two layouts: /opt/tritonserver and the nvidia-pytriton wheel, both with bin/tritonserver."""
        executable = executable.resolve()
        root = executable.parent.parent
        stubs = root / "python_backend_stubs"
        libraries = (root / "lib", root.parent.parent / "nvidia_pytriton.libs")
        return cls(
            executable=executable,
            backends=root / "backends",
            library_directories=tuple(path for path in libraries if path.is_dir()),
            stubs=stubs if stubs.is_dir() else None,
        )


def find_tritonserver(path: str | os.PathLike | None = None) -> TritonInstallation:
    """The tritonserver at `path` (the executable or the directory above bin/); without one, that on PATH, in
    /opt/tritonserver or in the nvidia-pytriton package, in this order.

    Raises InflightError when there is none.
    """
    if path is not None:
        given = Path(path)
        executable = given / "bin" / "tritonserver" if given.is_dir() else given
        if not _is_executable(executable):
            raise InflightError(f"tritonserver {path} is not an executable file")
        return TritonInstallation.of_executable(executable)
    for executable in _candidates():
        if _is_executable(executable):
            return TritonInstallation.of_executable(executable)
    raise InflightError(
        f"no tritonserver found on PATH, in {CONTAINER_ROOT} or in the nvidia-pytriton package:"
        " run `pip install nvidia-pytriton==0.7.0` or give --tritonserver PATH"
    )


def _candidates():
    on_path = shutil.which("tritonserver")
    if on_path is not None:
        yield Path(on_path)
    yield CONTAINER_ROOT / "bin" / "tritonserver"
    package = importlib.util.find_spec("pytriton")
    for directory in package.submodule_search_locations or () if package else ():
        yield Path(directory) / "tritonserver" / "bin" / "tritonserver"


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
