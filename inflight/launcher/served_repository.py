"""The model repository that serves what a user names by its path."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inflight.checkpoint import config as checkpoint_config
from inflight.engine import config as engine_config
from inflight.errors import InflightError
from inflight.json_object import format_of
from inflight.launcher import server_directory
from inflight.launcher.server_directory import ServerDirectory


@contextmanager
def served_repository(path: Path) -> Iterator[Path]:
    """Yields `path` if it is a model repository, or one made for the engine at `path`, which goes when the block ends.

    Raises InflightError that says how to come to a repository from anything else.
    """
    path = path.expanduser()
    if not path.exists():
        raise InflightError(f"{path} does not exist", "not_found")
    if path.is_dir() and any(path.glob("*/config.pbtxt")):
        yield path
    elif (kind := format_of(path)) == engine_config.FORMAT:
        with _repository_of(path) as repository:
            yield repository
    elif kind == checkpoint_config.FORMAT:
        raise InflightError(f"{path} is a checkpoint: make an engine of it with `inflight build {path} --out engine`")
    else:
        raise InflightError(
            f"{path} is neither a model repository (no directory in it has a config.pbtxt) nor an engine: a model from"
            f" Hugging Face or a GGUF file becomes one with `inflight convert {path} --out checkpoint` and `inflight"
            " build checkpoint --out engine`"
        )


@contextmanager
def _repository_of(engine: Path) -> Iterator[Path]:
    from inflight.repository.generate import generate_repository

    directory = ServerDirectory.create()
    try:
        yield generate_repository(engine, directory.path / "repository")
    finally:
        directory.release()
        server_directory.remove(directory.path)
