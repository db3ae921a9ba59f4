"""A directory that appears complete or not at all."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from inflight.errors import InflightError
from inflight.scratch_directory import scratch_directory


@contextmanager
def staged_directory(out: Path, kind: str, is_kind: Callable[[Path], bool]) -> Iterator[Path]:
    """Yields a temporary directory beside `out` that takes its place when the block ends without an error.

    An existing `out` is replaced if it is empty or an earlier result, which `is_kind` tells; `kind` says in the
    refusal of any other what it should have been. Whatever fails, an existing `out` stays or comes back.
    Raises InflightError for a refusal, and for whatever the file system refuses.
    """
    out = Path(os.path.realpath(out))
    if not _may_replace(out, is_kind):
        raise InflightError(f"{out} exists and is not {kind}: remove it or choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with scratch_directory(beside=out) as scratch:
            stage = scratch / out.name  # unlike `scratch`, readable by whom the umask lets
            stage.mkdir()
            yield stage
            _replace(out, stage, old=scratch / "replaced")
    except OSError as error:
        raise InflightError(f"cannot write {error.filename or out}: {error.strerror}") from error


def _may_replace(out: Path, is_kind: Callable[[Path], bool]) -> bool:
    if not out.is_dir():
        return not out.exists()
    try:
        return not any(out.iterdir()) or is_kind(out)
    except InflightError:
        return False


def _replace(out: Path, stage: Path, old: Path) -> None:
    if not out.exists():
        stage.rename(out)
        return
    out.rename(old)
    try:
        stage.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
