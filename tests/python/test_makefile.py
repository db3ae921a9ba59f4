"""What make does again, and what not."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("Makefile", "CMakeLists.txt", "pyproject.toml", "requirements.txt", "requirements-test.txt", "scripts",
          "backend", "inflight", "model_templates", "tests/cpp")  # fmt: skip
STEPS = ("venv/.requirements", "venv/.installed", "model/checkpoint/config.json", "model/engine/config.json",
         "model/repository/ensemble/config.pbtxt")  # fmt: skip


@pytest.fixture
def tree(tmp_path):
    """A source tree in which `make serve` has run, as far as make can tell: all times are in the order of the steps."""
    for name in COPIED:
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy(source, target)
    for file in tmp_path.rglob("*"):
        os.utime(file, (1000, 1000))
    for index, name in enumerate(STEPS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        touch(tmp_path / name, 2000 + index)
    return tmp_path


def touch(file, time):
    file.touch()
    os.utime(file, (time, time))


def commands(tree, target):
    """What `make target` would run."""
    variables = [f"{name}={name.lower()}" for name in ("VENV", "MODEL")] + ["BUILD=built"]
    made = subprocess.run(["make", "-n", target, *variables], cwd=tree, capture_output=True, text=True, check=True)
    return made.stdout


def test_serving_again_makes_nothing_again(tree):
    (tree / "inflight" / "text" / "__pycache__").mkdir()  # by the server's Python models
    assert "inflight convert" not in commands(tree, "serve")
    assert "pip" not in commands(tree, "serve")


def test_tests_do_not_make_the_model_again(tree):
    touch(tree / "venv/.installed", 3000)  # they install the package with the C++ tests
    (tree / "inflight" / "__pycache__").mkdir()  # and run parts of it from here
    served = commands(tree, "serve")
    assert "inflight convert" not in served and "inflight build" not in served and "launch_server.py" in served


@pytest.mark.parametrize("changed", ["inflight/checkpoint/convert.py", "requirements.txt"])
def test_what_the_model_depends_on_makes_it_again(tree, changed):
    touch(tree / changed, 3000)
    served = commands(tree, "serve")
    assert served.index("install") < served.index("inflight convert") < served.index("inflight build")
