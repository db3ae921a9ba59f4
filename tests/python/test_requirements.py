"""The pinned requirements hold what pyproject.toml asks for."""

import ast
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def pins(name: str) -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line]
    return {requirement.name: str(requirement.specifier).removeprefix("==") for requirement in requirements}


def dependencies(extra: str, package: str = "inflight") -> list[Requirement]:
    requirements = [Requirement(line) for line in requires(package) or ()]
    return [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": extra})]


@pytest.mark.parametrize("extra", ["", "server"])
def test_demo_installs_what_the_package_needs(extra):
    pinned = pins("requirements.txt")
    for requirement in dependencies(extra):
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


def test_nothing_is_pinned_twice():
    files = ("requirements.txt", "requirements-test.txt", "requirements-lint.txt", "requirements-gpu.txt")
    names = [name for file in files for name in pins(file)]
    assert sorted(set(names)) == sorted(names)


def installed_with(requirements: list[Requirement], known: frozenset[str] = frozenset()) -> frozenset[str]:
    """The distributions that come with these, and with what they need."""
    for requirement in requirements:
        if canonicalize_name(requirement.name) in known:
            continue
        known |= {canonicalize_name(requirement.name)}
        for extra in ("", *requirement.extras):
            try:
                known = installed_with(dependencies(extra, requirement.name), known)
            except PackageNotFoundError:  # which the pinned requirements leave out
                pass
    return known


def imports(*folders: str) -> dict[str, str]:
    """Package → a file that imports it."""
    found = {}
    for file in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            found |= {name.partition(".")[0]: str(file.relative_to(ROOT)) for name in names}
    return found


def test_an_empty_environment_gets_what_the_package_imports():
    """`pip install '.[server]'` and nothing else. inflight/kernels is compiled elsewhere."""
    got = installed_with([*dependencies(""), *dependencies("server")])
    distributions = packages_distributions()
    for package, file in imports("inflight", "model_templates", "llmapi_templates").items():
        if package in sys.stdlib_module_names | {"inflight", "triton_python_backend_utils"} or "kernels" in file:
            continue
        assert got & {canonicalize_name(name) for name in distributions.get(package, [package])}, (package, file)
