"""The environment of a server: where its libraries and its Python are."""

import os
import sys
import sysconfig
from pathlib import Path

from inflight.errors import InflightError
from inflight.launcher.tritonserver import TritonInstallation


def server_environment(installation: TritonInstallation, preload: Path) -> dict[str, str]:
    """This process's environment, extended so that the python backend runs this interpreter with its packages, and
    the server loads the library `preload` first.

    The backend's stub ignores PYTHONPATH and PYTHONHOME: it takes the installation or virtual environment of
    the first python3 on PATH.
    """
    environment = dict(os.environ)
    _prepend(environment, "LD_LIBRARY_PATH", [*installation.library_directories, shared_libpython().parent])
    _prepend(environment, "LD_PRELOAD", [preload])
    _prepend(environment, "PATH", [Path(sys.executable).parent])
    return environment


def shared_libpython() -> Path:
    """libpythonX.Y.so of the running interpreter, which the python backend's stub is linked against.

    Raises InflightError naming what to install when Python was built without it.
    """
    variables = sysconfig.get_config_vars()
    version = sysconfig.get_python_version()
    name = f"libpython{version}.so.1.0"
    directories = [Path(variables["LIBDIR"]), Path(sys.base_prefix) / "lib"]
    directories += [directory / variables.get("MULTIARCH", "") for directory in tuple(directories)]
    for directory in directories:
        if (directory / name).is_file():
            return directory / name
    raise InflightError(
        f"Python {version} at {sys.base_prefix} has no shared {name}, which Triton's python backend needs:"
        f" install it (Debian and Ubuntu: apt install libpython{version}; pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared)"
    )


def _prepend(environment: dict[str, str], name: str, paths: list[Path]) -> None:
    entries = [str(path) for path in paths]
    if environment.get(name):
        entries.append(environment[name])
    environment[name] = os.pathsep.join(dict.fromkeys(entries))
