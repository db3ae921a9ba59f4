"""Where tritonserver is looked for."""

import importlib.util
from pathlib import Path

import pytest

from inflight.errors import InflightError
from inflight.launcher import tritonserver
from inflight.launcher.tritonserver import find_tritonserver


def install(root: Path) -> Path:
    executable = root / "bin" / "tritonserver"
    executable.parent.mkdir(parents=True)
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o755)
    return executable


@pytest.fixture
def bare_machine(tmp_path, monkeypatch):
    """A machine without any tritonserver; returns where /opt/tritonserver would be."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(tritonserver, "CONTAINER_ROOT", tmp_path / "opt")
    monkeypatch.setattr(tritonserver.importlib.util, "find_spec", lambda name: None)
    return tmp_path / "opt"


def test_argument_may_be_the_executable(tmp_path):
    executable = install(tmp_path)
    assert find_tritonserver(executable).executable == executable


def test_argument_may_be_the_directory_above_bin(tmp_path):
    executable = install(tmp_path)
    assert find_tritonserver(str(tmp_path)).executable == executable


def test_argument_that_is_no_executable_is_refused_by_name(tmp_path):
    with pytest.raises(InflightError, match="tritonserver .*missing is not an executable file"):
        find_tritonserver(tmp_path / "missing")


def test_path_comes_before_the_container(bare_machine, tmp_path):
    executable = install(tmp_path)
    install(bare_machine)
    assert find_tritonserver().executable == executable


def test_container_is_found(bare_machine):
    executable = install(bare_machine)
    assert find_tritonserver().executable == executable


def test_none_found_says_what_to_install(bare_machine):
    with pytest.raises(InflightError, match="pip install nvidia-pytriton"):
        find_tritonserver()


def test_container_has_one_stub_and_its_own_libraries(tmp_path):
    (tmp_path / "lib").mkdir()
    installation = find_tritonserver(install(tmp_path))
    assert installation.stubs is None
    assert installation.library_directories == (tmp_path / "lib",)
    assert installation.backends == tmp_path / "backends"


def test_pytriton_package_has_a_stub_for_each_python():
    if importlib.util.find_spec("pytriton") is None:
        pytest.skip("nvidia-pytriton is not installed")
    installation = find_tritonserver()
    assert (installation.stubs / "3.11" / "triton_python_backend_stub").is_file()
    assert installation.library_directories[0].name == "nvidia_pytriton.libs"
