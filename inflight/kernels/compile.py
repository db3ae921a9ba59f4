"""Compiles OpenAI Triton kernels ahead of time: cubins, embedded in C++ with typed launchers. Needs no GPU.

    python -m inflight.kernels.compile --target sm_80,sm_89,sm_90 --out build/kernels

writes NAME.h and NAME.cc for each kernel, and kernel_launch.h and kernel_launch.cc, which they share. They need the
headers of CUDA and its run-time library. Without --out, kernels are compiled and checked, and the cache is filled.
"""

import argparse
import os
import sys
from pathlib import Path

from inflight.errors import InflightError
from inflight.kernels.compiler.cubin import compile_variants
from inflight.kernels.compiler.declaration import Kernel
from inflight.kernels.compiler.launcher import write_header, write_source
from inflight.kernels.compiler.sources import PACKAGE, load_kernels, package_sources
from inflight.kernels.compiler.targets import Target, parse_targets
from inflight.kernels.compiler.variants import restrict, variants

_SHARED_FILES = ("kernel_launch.h", "kernel_launch.cc")
_DEFAULT_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inflight" / "kernels"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m inflight.kernels.compile", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("sources", nargs="*", type=Path, help="Python files with kernels (default: Inflight's own)")
    parser.add_argument("--target", required=True, help="GPU architectures, such as sm_80,sm_90")
    parser.add_argument("--out", type=Path, help="folder for the C++ files")
    parser.add_argument("--only", action="append", metavar="KERNEL", help="compile this kernel; may be repeated")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE,…",
        dest="choices",
        help="values of a data type or a key, in place of the table's; may be repeated",
    )
    parser.add_argument("--cache", type=Path, default=_DEFAULT_CACHE, help="default %(default)s")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once (default %(default)s)")
    options = parser.parse_args(argv)
    try:
        _run(options)
    except InflightError as error:
        print(f"inflight.kernels.compile: {error}", file=sys.stderr)
        return 1
    return 0


def compile_kernels(kernels: list[Kernel], targets: list[Target], out: Path | None, cache: Path, jobs: int) -> int:
    """Compiles every variant of the kernels and, with `out`, writes their C++. Returns the number of variants."""
    work = [variant for kernel in kernels for variant in variants(kernel, targets)]
    cubins = compile_variants(work, cache, jobs)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name in _SHARED_FILES:
            _write_if_changed(out / name, (PACKAGE / "compiler" / "launch" / name).read_text())
        for kernel in kernels:
            own = [cubin for cubin in cubins if cubin.variant.kernel is kernel]
            if not own:
                names = ", ".join(target.name for target in targets)
                raise InflightError(f"{kernel.name} has no variant for {names}: its `where` is {kernel.where}")
            _write_if_changed(out / f"{kernel.name}.h", write_header(kernel))
            _write_if_changed(out / f"{kernel.name}.cc", write_source(kernel, own))
    return len(work)


def _run(options: argparse.Namespace) -> None:
    targets = parse_targets(options.target)
    choices = dict(map(_parse_choice, options.choices))
    kernels = [kernel for source in options.sources or package_sources() for kernel in load_kernels(source)]
    declared = {kernel.name: kernel for kernel in kernels}
    for name in options.only or ():
        if name not in declared:
            raise InflightError(f"--only: there is no kernel {name}; there are {', '.join(declared)}")
    selected = [kernel for kernel in kernels if not options.only or kernel.name in options.only]
    names = {name for kernel in selected for name in (*kernel.types, *kernel.keys)}
    for name in choices:
        if name not in names:
            raise InflightError(f"--set: no kernel has a type or key {name}; there are {', '.join(sorted(names))}")
    restricted = [restrict(kernel, choices) for kernel in selected]
    count = compile_kernels(restricted, targets, options.out, options.cache, options.jobs)
    where = f" in {options.out}" if options.out else ""
    print(f"{len(selected)} kernels, {count} variants for {options.target}{where}")


def _parse_choice(text: str) -> tuple[str, tuple[str, ...]]:
    name, equals, values = text.partition("=")
    if not equals or not values:
        raise InflightError(f"--set takes NAME=VALUE,…: {text!r}")
    return name, tuple(values.split(","))


def _write_if_changed(path: Path, text: str) -> None:
    """What is unchanged keeps its time, so that it is not compiled again."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
