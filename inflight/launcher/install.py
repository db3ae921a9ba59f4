"""Makes a folder of Triton backends for a tritonserver that is not started by our launcher."""

import os
import re
import shlex
import sys
from pathlib import Path

from inflight.errors import InflightError
from inflight.launcher.backend_directory import STUB, find_backend_library, find_installed, find_stub
from inflight.launcher.environment import SERVER_PRELOAD, STUB_PRELOAD, shared_libpython
from inflight.launcher.tritonserver import TritonInstallation

SERVER = "tritonserver"  # in the folder: starts the real one with all that the launcher would give it
_NAMES = ("inflight", "tensorrtllm")
_PLAIN_PATH = re.compile(r"[\w./-]*")  # Triton starts its python stubs by a shell command without quotes
_WRITTEN_BY = "# Written by `inflight install-backend`."


def install_backend(directory: Path, installation: TritonInstallation) -> Path:
    """Links our backend into `directory`, under its name and upstream's, so that `tritonserver --backend-directory`
    finds it, and returns the path of a `tritonserver` there that needs no such option.

    The folder may be Triton's own, which has its python backend. Otherwise it gets the installation's, with the running
    interpreter for Python models. What an earlier call made is replaced. Raises InflightError.
    """
    directory = Path(os.path.abspath(directory))
    if not _PLAIN_PATH.fullmatch(str(directory)):
        raise InflightError(f"{directory}: Triton takes no backend directory with spaces or special characters")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _require_free(directory)
        for name in _NAMES:
            (directory / name).mkdir(exist_ok=True)
            _link(directory / name / f"libtriton_{name}.so", find_backend_library())
        if directory != installation.backends:
            _install_others(directory, installation)
        return _write_server(directory, installation)
    except OSError as error:
        raise InflightError(f"cannot write {error.filename or directory}: {error.strerror}") from error


def _require_free(directory: Path) -> None:
    for name in _NAMES:
        library = directory / name / f"libtriton_{name}.so"
        if library.exists() and not library.is_symlink():
            raise InflightError(f"{library.parent} is another backend: move it away, or choose another directory")


def _install_others(directory: Path, installation: TritonInstallation) -> None:
    """Triton reads one folder of backends: the installation's others are linked into it."""
    for backend in installation.backends.iterdir():
        if backend.name not in ("python", *_NAMES) and not (directory / backend.name).exists():
            (directory / backend.name).symlink_to(backend)
    python = directory / "python"
    if python.exists() and not (python / STUB_PRELOAD).is_symlink():
        return  # not made by us
    python.mkdir(exist_ok=True)
    for file in (installation.backends / "python").iterdir():
        if file.name not in ("__pycache__", STUB):
            _link(python / file.name, file)
    _link(python / STUB_PRELOAD, find_installed(STUB_PRELOAD))
    libraries = [*installation.library_directories, shared_libpython().parent]
    _write_program(
        python / STUB,
        {
            "PATH": f"{Path(sys.executable).parent}:$PATH",
            "LD_LIBRARY_PATH": _joined(libraries, "LD_LIBRARY_PATH"),
            "INFLIGHT_STUB": str(find_stub(installation)),
            "INFLIGHT_STUB_PRELOAD": str(python / STUB_PRELOAD),
            "INFLIGHT_STUB_STACK": "${INFLIGHT_STUB_STACK:-$(ulimit -S -s)}",
        },
        [str(find_installed(STUB))],
    )


def _write_server(directory: Path, installation: TritonInstallation) -> Path:
    _link(directory / SERVER_PRELOAD, find_installed(SERVER_PRELOAD))
    _write_program(
        directory / SERVER,
        {
            "LD_LIBRARY_PATH": _joined(installation.library_directories, "LD_LIBRARY_PATH"),
            "LD_PRELOAD": _joined([directory / SERVER_PRELOAD], "LD_PRELOAD"),
        },
        [str(installation.executable), f"--backend-directory={directory}"],
    )
    return directory / SERVER


def _joined(paths, variable: str) -> str:
    """Before what the variable has, in a shell."""
    return ":".join(map(str, paths)) + f"${{{variable}:+:${variable}}}"


def _link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _write_program(path: Path, variables: dict[str, str], command: list[str]) -> None:
    """A shell script. The variables' values may name variables."""
    path.unlink(missing_ok=True)
    lines = ["#!/bin/sh", _WRITTEN_BY]
    lines += [f'export {name}="{value}"' for name, value in variables.items()]
    lines.append(f'exec {shlex.join(command)} "$@"')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    path.chmod(0o755)
