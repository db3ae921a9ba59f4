"""Finds or makes the engine for a model, a checkpoint or an engine that a user names by its path.

Engines made here stay in a cache directory, under a key of everything that they depend on: the source files with their
sizes and times, the options, this package's code and the libraries that read models, and, where the options leave the
memory plan open, the machine.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from importlib.metadata import version
from pathlib import Path

import inflight
from inflight._native import available_cpus
from inflight.checkpoint import config as checkpoint_config
from inflight.engine import config as engine_config
from inflight.engine.config import BuildOptions
from inflight.engine.machine import total_memory
from inflight.errors import InflightError
from inflight.json_object import format_of
from inflight.llm.option_names import require_known_options
from inflight.scratch_directory import scratch_directory


def engine_directory(path: Path, cache_dir: str | Path | None, progress: bool, **options) -> Path:
    """The engine at `path`, or the cached one made from the model or checkpoint at `path`.

    options: fields of inflight.engine.config.BuildOptions.
    """
    require_known_options("BuildOptions", options, [field.name for field in fields(BuildOptions)])
    path = path.expanduser()
    if not path.exists():
        raise InflightError(f"{path} does not exist{_hub_hint(path)}", "not_found")
    kind = _kind(path)
    if kind == "engine":
        if options:
            raise InflightError(f"{path} is a built engine: {', '.join(options)} must be given to `inflight build`")
        return path
    BuildOptions(**options).check()

    root = Path(cache_dir).expanduser() if cache_dir is not None else _default_cache_dir()
    root.mkdir(parents=True, exist_ok=True)
    name = path.resolve().name.removesuffix(".gguf")
    directory = root / f"{name}-{_key(path, options)}"
    with _lock(root / f"{directory.name}.lock"):
        if not directory.exists():
            _make(path, kind, directory, progress, **options)
    return directory


def _kind(path: Path) -> str:
    """ "engine", "checkpoint" or "model", by what config.json says it is."""
    return {engine_config.FORMAT: "engine", checkpoint_config.FORMAT: "checkpoint"}.get(format_of(path), "model")


def _hub_hint(path: Path) -> str:
    """For what may be a name on the Hugging Face Hub."""
    if path.is_absolute() or len(path.parts) != 2 or path.parts[0] in (".", ".."):
        return ""
    return f": give a path; `hf download {path} --local-dir {path.name}` fetches a model from the Hugging Face Hub"


def _make(path: Path, kind: str, directory: Path, progress: bool, **options) -> None:
    from inflight.checkpoint.convert import convert_checkpoint
    from inflight.engine.build import build_engine

    # Made beside its place and renamed: what is in the cache is complete.
    with scratch_directory(beside=directory) as scratch:
        checkpoint = path
        if kind == "model":
            checkpoint = scratch / "checkpoint"
            convert_checkpoint(path, checkpoint, progress=progress)
        engine = scratch / "engine"
        build_engine(checkpoint, engine, BuildOptions(**options), progress=progress)
        if kind == "model":
            shutil.rmtree(checkpoint)
        engine.rename(directory)


def _key(path: Path, options: dict) -> str:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    stamps = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    machine = None if options.get("kv_cache_memory") is not None else [total_memory(), available_cpus()]
    described = json.dumps([_code(), _libraries(), machine, stamps, sorted(options.items())], default=str)
    return hashlib.sha256(described.encode()).hexdigest()[:16]


@cache
def _code() -> str:
    """A digest of this package: a checkpoint or an engine of another version may differ."""
    digest = hashlib.sha256()
    for package in map(Path, inflight.__path__):
        for file in sorted([*package.rglob("*.py"), *package.glob("_native*.so")]):
            digest.update(str(file.relative_to(package)).encode() + file.read_bytes())
    return digest.hexdigest()


def _libraries() -> list[str]:
    """Those that say what a model's files mean."""
    return [version(name) for name in ("transformers", "tokenizers", "gguf")]


def _default_cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inflight"


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time makes an engine; the others wait and find it made."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
