"""The code of a repository's Python models: upstream's own needs packages and Python versions that ours does not."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

_GIVEN_BY_TRITON = ("triton_python_backend_utils", "c_python_backend_utils")
_OURS = re.compile(r"^\s*(import|from) inflight\b", re.MULTILINE)  # as the code of our models has it
# Models of upstream's for which there is one of ours.
REPLACEABLE = ("preprocessing", "postprocessing", "tensorrt_llm", "tensorrt_llm_bls")


def code_of(model: Path) -> Path:
    return model / "1" / "model.py"


def is_ours(model: Path) -> bool:
    """Whether the Python model in a directory is one of model_templates; so is one that has no code."""
    code = code_of(model)
    return not code.is_file() or _OURS.search(code.read_text(encoding="utf-8", errors="replace")) is not None


def missing_imports(model: Path) -> Iterator[str]:
    """What is wrong with the code of a Python model: packages that it imports and that are not installed."""
    directory = model / "1"
    for code in sorted(directory.rglob("*.py")):
        if missing := [name for name in _imported(code) if not _is_installed(name, directory)]:
            yield (
                f"{code} imports {', '.join(missing)}, which {sys.executable} does not have: install "
                f"{'it' if len(missing) == 1 else 'them'}{_or_ours(model)}"
            )
            return


def replacement_hint(repository: Path, reason: str) -> str:
    """What to do about models of upstream's of which `reason` says why they did not load; empty if there are none."""
    failed = (repository / name for name in REPLACEABLE if f"model {name}: " in reason)
    for model in failed:
        if not is_ours(model):
            return f"\n{code_of(model)} is not Inflight's{_or_ours(model).replace(', or', ':')}"
    return ""


def _or_ours(model: Path) -> str:
    if model.name not in REPLACEABLE or is_ours(model):
        return ""
    return f", or put Inflight's in its place: `inflight repo ENGINE --from {model.parent} --out NEW_REPOSITORY`"


def _imported(code: Path) -> list[str]:
    """The packages that are imported whenever the file is, in order. None for what cannot be read, which fails later
    with Python's own words."""
    try:
        tree = ast.parse(code.read_bytes())
    except (SyntaxError, ValueError):
        return []
    names = []
    for statement in tree.body:
        if isinstance(statement, ast.Import):
            names += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0 and statement.module:
            names.append(statement.module)
    return list(dict.fromkeys(name.partition(".")[0] for name in names))


def _is_installed(name: str, directory: Path) -> bool:
    beside = (directory / f"{name}.py").is_file() or (directory / name).is_dir()
    return name in _GIVEN_BY_TRITON or beside or name in sys.modules or find_spec(name) is not None
