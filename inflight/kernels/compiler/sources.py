"""Files with kernels → their declarations."""

import hashlib
import importlib.util
import sys
from pathlib import Path

from inflight.errors import InflightError
from inflight.kernels.compiler.declaration import Kernel

PACKAGE = Path(__file__).parents[1]
_NOT_KERNELS = ("__init__.py", "compile.py", "attention_scores.py")


def package_sources() -> list[Path]:
    """The files of Inflight's own kernels."""
    return sorted(path for path in PACKAGE.glob("*.py") if path.name not in _NOT_KERNELS)


def load_kernels(source: Path) -> list[Kernel]:
    """The kernels that a Python file declares, in its order. Raises InflightError where there are none."""
    module = _load(source.resolve())
    kernels = [value for value in vars(module).values() if isinstance(value, Kernel) and _is_of(value, module)]
    if not kernels:
        raise InflightError(f"{source} declares no kernel: give it an inflight.kernels.compiler.declaration.Kernel")
    return kernels


def _load(path: Path):
    if not path.exists():
        raise InflightError(f"{path} does not exist", "not_found")
    if path.parent == PACKAGE:
        return importlib.import_module(f"inflight.kernels.{path.stem}")
    name = f"inflight_kernels_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise InflightError(f"{path} is not a Python file: its name must end in .py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[name])
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _is_of(kernel: Kernel, module) -> bool:
    return kernel.function.fn.__module__ == module.__name__
