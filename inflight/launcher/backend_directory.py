"""The backend directory that a server is started with: python, inflight, and inflight as tensorrtllm."""

import sys
from pathlib import Path

import inflight
from inflight.errors import InflightError
from inflight.launcher.tritonserver import TritonInstallation

STUB = "triton_python_backend_stub"


def find_backend_library() -> Path:
    """The backend's library as CMake installs it into the package."""
    return find_installed("inflight/libtriton_inflight.so")


def find_installed(name: str) -> Path:
    """A file that CMake installs into the package's folder `backends`."""
    for package in inflight.__path__:
        library = Path(package).absolute() / "backends" / name
        if library.is_file():
            return library
    raise InflightError(f"{name} is not in the installed inflight package: build it with `pip install .`")


def prepare_backend_directory(directory: Path, installation: TritonInstallation, library: Path) -> None:
    """Fills `directory` with links to the installation's other backends and to `library`.

    The python backend looks for its stub beside itself: there is ours, which starts the one of find_stub(). There, on
    the path of every Python model, lies also a link to this very inflight package.
    The backend name tensorrtllm lets upstream's model repositories load unchanged.
    """
    _prepare_python_backend(directory / "python", installation)
    for backend in installation.backends.iterdir():
        if backend.name not in ("python", "inflight", "tensorrtllm"):
            (directory / backend.name).symlink_to(backend)
    for name in ("inflight", "tensorrtllm"):
        (directory / name).mkdir()
        (directory / name / f"libtriton_{name}.so").symlink_to(library)


def _prepare_python_backend(directory: Path, installation: TritonInstallation) -> None:
    source = installation.backends / "python"
    if not source.is_dir():
        raise InflightError(f"tritonserver at {installation.executable} has no python backend ({source})")
    directory.mkdir()
    for file in source.iterdir():
        if file.name != "__pycache__":
            (directory / file.name).symlink_to(file)
    (directory / "inflight").symlink_to(Path(inflight.__path__[0]).absolute())
    (directory / STUB).unlink(missing_ok=True)
    (directory / STUB).symlink_to(find_installed(STUB))


def find_stub(installation: TritonInstallation) -> Path:
    """The stub that matches the running interpreter. Raises InflightError where there is none."""
    if installation.stubs is None:
        return installation.backends / "python" / STUB
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = installation.stubs / version / STUB
    if not stub.is_file():
        raise InflightError(
            f"{installation.stubs} has no python backend for Python {version}: use Python 3.10, 3.11 or 3.12"
        )
    return stub
