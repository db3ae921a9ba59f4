"""The pinned requirements hold what pyproject.toml asks for."""

from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def pins(name: str) -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line]
    return {requirement.name: str(requirement.specifier).removeprefix("==") for requirement in requirements}


def dependencies(extra: str) -> list[Requirement]:
    requirements = [Requirement(line) for line in requires("inflight") or ()]
    return [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": extra})]


@pytest.mark.parametrize("extra", ["", "server"])
def test_demo_installs_what_the_package_needs(extra):
    pinned = pins("requirements.txt")
    for requirement in dependencies(extra):
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


def test_nothing_is_pinned_twice():
    names = [
        name for file in ("requirements.txt", "requirements-test.txt", "requirements-lint.txt") for name in pins(file)
    ]
    assert sorted(set(names)) == sorted(names)
