"""The C++ tests, one pytest test for each ctest test."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BUILD = os.environ.get("INFLIGHT_BUILD_DIR")  # set by `make test`; a CMake build with INFLIGHT_BUILD_TESTS=ON
TIMEOUT = 300  # seconds for one test

pytestmark = pytest.mark.skipif(not BUILD, reason="INFLIGHT_BUILD_DIR names no CMake build: run `make test`")


def ctest(*arguments: str) -> subprocess.CompletedProcess:
    beside_python = Path(sys.executable).with_name("ctest")  # of the cmake package from PyPI
    executable = beside_python if beside_python.exists() else shutil.which("ctest")
    return subprocess.run([executable, "--test-dir", BUILD, *arguments], capture_output=True, text=True)


def names() -> list[str]:
    listing = ctest("--show-only=json-v1") if BUILD else None
    return [test["name"] for test in json.loads(listing.stdout)["tests"]] if listing else []


@pytest.mark.parametrize("name", names())
def test_cpp(name):
    run = ctest("--tests-regex", f"^{name}$", "--timeout", str(TIMEOUT), "--output-on-failure", "--no-tests=error")
    assert run.returncode == 0, run.stdout + run.stderr
