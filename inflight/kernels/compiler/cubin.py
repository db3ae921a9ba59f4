"""One variant → machine code, cached by content."""

import hashlib
import json
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

from inflight.errors import InflightError
from inflight.kernels.compiler.sources import load_kernels
from inflight.kernels.compiler.targets import Target
from inflight.kernels.compiler.variants import Variant

# A change of what is asked of Triton below makes other machine code of the same source: count it up.
_FORMAT = 2


@dataclass(frozen=True)
class Cubin:
    """Machine code of one variant and how it is launched."""

    variant: Variant
    symbol: str
    shared_bytes: int
    threads: int
    image: bytes


def compile_variants(variants: list[Variant], cache: Path, jobs: int) -> list[Cubin]:
    """Compiles what the cache lacks. Raises InflightError for the first variant that cannot be compiled."""
    missing = [variant for variant in variants if not _entry(cache, variant).with_suffix(".json").exists()]
    cache.mkdir(parents=True, exist_ok=True)
    if missing:
        # Processes of their own: Triton compiles in one thread and keeps the interpreter's lock.
        tasks = [(_Task.of(variant), cache) for variant in missing]
        with ProcessPoolExecutor(min(jobs, len(tasks)), get_context("spawn")) as pool:
            for failure in pool.map(_compile_to_cache, tasks):
                if failure is not None:
                    pool.shutdown(cancel_futures=True)
                    raise InflightError(failure)
    return [_read(cache, variant) for variant in variants]


@dataclass(frozen=True)
class _Task:
    """A variant as it travels to another process, which loads the kernel's file itself."""

    source: Path
    kernel: str
    target: Target
    tile_index: int
    types: dict
    keys: dict

    @classmethod
    def of(cls, variant: Variant) -> "_Task":
        source = Path(variant.kernel.function.fn.__code__.co_filename)
        return cls(source, variant.kernel.name, variant.target, variant.tile_index, variant.types, variant.keys)

    def variant(self) -> Variant:
        kernel = next(kernel for kernel in load_kernels(self.source) if kernel.name == self.kernel)
        return Variant(kernel, self.target, self.tile_index, self.types, self.keys)


def _compile_to_cache(task: tuple[_Task, Path]) -> str | None:
    """Returns what went wrong."""
    variant, cache = task[0].variant(), task[1]
    try:
        image, about = _compile(variant)
    except Exception as error:  # Triton raises whatever its passes raise
        cause = error.__cause__ or error
        return f"{variant.label()} does not compile: {type(cause).__name__}: {cause}"
    entry = _entry(cache, variant)
    # The image first, each in one step: what is there is complete, whoever else compiles the same.
    _write(entry.with_suffix(".cubin"), image)
    _write(entry.with_suffix(".json"), json.dumps(about).encode())
    return None


def _compile(variant: Variant) -> tuple[bytes, dict]:
    os.environ["TRITON_DISABLE_LINE_INFO"] = "1"  # else machine code depends on where the kernel's file is
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, tile = variant.kernel, variant.tile
    parameters = list(kernel.function.arg_names)
    aligned = {
        (parameters.index(argument.name),): [["tt.divisibility", 16]]
        for argument in kernel.parsed_arguments()
        if argument.is_aligned
    }
    source = ASTSource(fn=kernel.function, signature=variant.signature(), constexprs=variant.constants(), attrs=aligned)
    options = {"num_warps": tile.num_warps, "num_stages": tile.num_stages}
    target = GPUTarget("cuda", variant.target.capability, 32)
    with tempfile.TemporaryDirectory() as scratch:  # Triton's own cache, which this one replaces
        os.environ["TRITON_CACHE_DIR"] = scratch
        compiled = triton.compile(source, target=target, options=options)
        image = compiled.asm["cubin"]
    metadata = compiled.metadata
    if metadata.global_scratch_size:
        raise InflightError(
            f"it needs {metadata.global_scratch_size} bytes of global scratch memory, which launchers "
            "do not provide: make no tensor descriptors in the kernel"
        )
    about = {"symbol": metadata.name, "shared_bytes": metadata.shared, "threads": 32 * metadata.num_warps}
    return image, about


def _entry(cache: Path, variant: Variant) -> Path:
    return cache / content_key(variant)


def content_key(variant: Variant) -> str:
    """Names what the machine code depends on: source, types, constants, options, target and the compiler's version."""
    import triton

    aligned = [argument.name for argument in variant.kernel.parsed_arguments() if argument.is_aligned]
    content = [
        _FORMAT,
        triton.__version__,
        _source(variant.kernel.function),
        variant.signature(),
        sorted(variant.constants().items()),
        aligned,
        asdict(variant.target),
        variant.tile.num_warps,
        variant.tile.num_stages,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _source(function) -> list[str]:
    """The function's source, of those that it calls and the constants that it reads, wherever in their files they are:
    Triton's own cache_key counts the line."""
    from triton.language import constexpr
    from triton.runtime.jit import JITCallable

    sources, waiting, seen = [], [function], set()
    while waiting:
        current = waiting.pop()
        if current in seen or current.fn.__module__.startswith("triton."):
            continue
        seen.add(current)
        sources.append(current.src)
        names = current.fn.__code__.co_names
        scopes = [
            current.fn.__globals__,
            *(vars(v) for n in names if isinstance(v := current.fn.__globals__.get(n), ModuleType)),
        ]
        for name in names:
            for value in (scope[name] for scope in scopes if name in scope):
                if isinstance(value, JITCallable):
                    waiting.append(value)
                elif isinstance(value, constexpr):
                    sources.append(f"{name} = {value.value}")
    return sorted(sources)


def _read(cache: Path, variant: Variant) -> Cubin:
    entry = _entry(cache, variant)
    cubin = Cubin(
        variant, image=entry.with_suffix(".cubin").read_bytes(), **json.loads(entry.with_suffix(".json").read_text())
    )
    _check_shared_memory(cubin)
    return cubin


def _check_shared_memory(cubin: Cubin) -> None:
    """Nothing else checks it before a launch fails on the GPU."""
    variant, limit = cubin.variant, cubin.variant.target.shared_memory_limit
    if cubin.shared_bytes > limit:
        sizes = ", ".join([*variant.tile.constants, "num_stages"])
        raise InflightError(
            f"{variant.label()} needs {cubin.shared_bytes} bytes of shared memory; a thread block of "
            f"{variant.target.name} has {limit}: lower {sizes} in its tile, or give {variant.target.name} a tile of "
            "its own"
        )


def _write(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, path)
