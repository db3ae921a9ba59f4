"""The temporary directory of one server, and what else it makes outside: all of it is found by the directory's name.

Uses only the standard library: the guardian runs without site-packages.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PREFIX = "inflight-server-"
_LOCK = "lock"
# Links to the directories that tritonserver makes elsewhere, see backend/triton/preload/temporary_directories.cc.
_MADE = "made"
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class ServerDirectory:
    """Whoever uses the directory holds a lock on a file in it, which ends with the last process that has it open."""

    path: Path
    lock: int  # file descriptor

    @classmethod
    def create(cls) -> "ServerDirectory":
        """A directory of our own; those of servers that were killed with their launchers are removed first."""
        parent = _temporary_directory()
        remove_abandoned(parent)
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        lock = os.open(path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        (path / _MADE).mkdir()
        return cls(path, lock)

    @property
    def shared_memory_prefix(self) -> str:
        """What the names of the server's regions in /dev/shm begin with."""
        return shared_memory_prefix(self.path)

    @property
    def made(self) -> Path:
        return self.path / _MADE

    def release(self) -> None:
        """Closes this process's end of the lock; the guardian, if it was given it, keeps its own."""
        os.close(self.lock)


def remove(path: Path) -> None:
    """Removes a server's directory and what the server has left elsewhere. The directory itself goes last: what is
    interrupted here, the next start completes."""
    for region in _SHARED_MEMORY.glob(f"{shared_memory_prefix(path)}*"):
        region.unlink(missing_ok=True)
    for link in (path / _MADE).glob("*"):
        with contextlib.suppress(OSError):
            shutil.rmtree(link.readlink(), ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)


def shared_memory_prefix(path: Path) -> str:
    return f"inflight_{path.name.removeprefix(_PREFIX)}_"


def remove_abandoned(parent: Path) -> None:
    """Removes what servers of this user have left in `parent` whose launcher and guardian were both killed."""
    for path in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), _locked(path):
            remove(path)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Raises OSError if somebody holds the lock, or if the directory is not ours."""
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.fstat(lock).st_uid != os.geteuid():
            raise PermissionError(path)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def _temporary_directory() -> Path:
    """LD_PRELOAD cannot take a path with a space or a colon, and Triton's python stubs split theirs at spaces."""
    directory = tempfile.gettempdir()
    return Path(directory if directory.isascii() and not set(directory) & set(" :'\"\\$`") else "/tmp")
