"""The environment of a server: where its libraries and its Python are."""

import os
import resource
import sys
import sysconfig
from pathlib import Path

from inflight.errors import InflightError
from inflight.launcher.backend_directory import find_installed, find_stub
from inflight.launcher.server_directory import ServerDirectory
from inflight.launcher.tritonserver import TritonInstallation

SERVER_PRELOAD = "libinflight_preload.so"  # backend/triton/preload/preload.cc and what it is built with
STUB_PRELOAD = "libinflight_stub_preload.so"  # backend/python_stub


def server_environment(installation: TritonInstallation, directory: ServerDirectory) -> dict[str, str]:
    """This process's environment, extended so that the python backend runs this interpreter with its packages, and
    that our libraries are loaded first, through links in `directory`.

    The backend's stub ignores PYTHONPATH and PYTHONHOME: it takes the installation or virtual environment of
    the first python3 on PATH.
    """
    environment = dict(os.environ)
    _prepend(environment, "LD_LIBRARY_PATH", [*installation.library_directories, shared_libpython().parent])
    _prepend(environment, "PATH", [Path(sys.executable).parent])
    environment |= _stub_environment(installation, directory)
    _prepend(environment, "LD_PRELOAD", [_link(directory, SERVER_PRELOAD)])
    environment["INFLIGHT_MADE_DIRECTORIES"] = str(directory.made)
    return environment


def _stub_environment(installation: TritonInstallation, directory: ServerDirectory) -> dict[str, str]:
    """What backend/python_stub/triton_python_backend_stub reads."""
    preload = {"LD_PRELOAD": os.environ.get("LD_PRELOAD", "")}
    _prepend(preload, "LD_PRELOAD", [_link(directory, STUB_PRELOAD)])
    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    return {
        "INFLIGHT_STUB": str(find_stub(installation)),
        "INFLIGHT_STUB_PRELOAD": preload["LD_PRELOAD"],
        "INFLIGHT_STUB_STACK": "unlimited" if stack == resource.RLIM_INFINITY else str(stack // 1024),
    }


def _link(directory: ServerDirectory, name: str) -> Path:
    """A path without the spaces that LD_PRELOAD splits at."""
    link = directory.path / name
    link.symlink_to(find_installed(name))
    return link


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
