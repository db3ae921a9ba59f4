"""A directory that appears complete or not at all."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inflight.errors import InflightError


@contextmanager
def staged_directory(out: Path, format_name: str) -> Iterator[Path]:
    """Yields a temporary directory beside `out` that takes its place when the block ends without an error.

    An existing `out` is replaced if it is empty or an earlier result: its config.json has "format":
    `format_name`. Raises InflightError for any other, and for whatever the file system refuses.
    """
    out = Path(os.path.abspath(out))
    if not _may_replace(out, format_name):
        raise InflightError(f"{out} exists and is not an {format_name} directory: remove it or choose another --out")
    stage = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(parents=True)
        yield stage
        _replace(out, stage)
    except OSError as error:
        raise InflightError(f"cannot write {error.filename or out}: {error.strerror}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _may_replace(out: Path, format_name: str) -> bool:
    if not out.exists():
        return True
    if not out.is_dir():
        return False
    try:
        config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return not any(out.iterdir())
    return isinstance(config, dict) and config.get("format") == format_name


def _replace(out: Path, stage: Path) -> None:
    if not out.exists():
        stage.rename(out)
        return
    old = stage.with_suffix(".old")
    out.rename(old)
    stage.rename(out)
    shutil.rmtree(old, ignore_errors=True)
