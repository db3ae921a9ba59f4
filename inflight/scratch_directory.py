"""Temporary directories that a killed process leaves behind for the next one to remove."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MARK = ".inflight-"


@contextmanager
def scratch_directory(beside: Path) -> Iterator[Path]:
    """A temporary directory beside the path `beside`, on its file system, removed when the block ends.

    A process that is killed cannot remove it. So its owner holds a lock on it, and whoever makes one for the same path
    removes those that nobody holds.
    """
    prefix = f".{beside.name}{_MARK}"
    _remove_abandoned(beside.parent, prefix)
    directory, lock = _make_locked(beside.parent, prefix)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _make_locked(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new directory and the descriptor of its lock."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # taken for an abandoned one before it was locked
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if directory.exists():
            return directory, lock
        os.close(lock)


def _remove_abandoned(parent: Path, prefix: str) -> None:
    for directory in parent.iterdir():
        if not directory.name.startswith(prefix) or not directory.is_dir():
            continue
        try:
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:  # gone meanwhile, or another user's
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
        except BlockingIOError:  # its owner is at work
            pass
        finally:
            os.close(lock)
