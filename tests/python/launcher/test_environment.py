"""What a server is started with: libraries, Python packages, backends, ports."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from inflight.errors import InflightError
from inflight.launcher import environment
from inflight.launcher.backend_directory import find_installed, find_stub, prepare_backend_directory
from inflight.launcher.environment import server_environment, shared_libpython
from inflight.launcher.ports import choose_ports
from inflight.launcher.server_directory import ServerDirectory, remove
from inflight.launcher.tritonserver import TritonInstallation


@pytest.fixture
def installation(tmp_path) -> TritonInstallation:
    """An installation with stubs for this Python only."""
    backends = tmp_path / "triton" / "backends"
    stub = tmp_path / "triton" / "stubs" / f"{sys.version_info.major}.{sys.version_info.minor}"
    for file in (
        backends / "python" / "libtriton_python.so",
        backends / "onnx" / "x.so",
        stub / "triton_python_backend_stub",
    ):
        file.parent.mkdir(parents=True)
        file.write_text(file.name)
    return TritonInstallation(tmp_path / "triton" / "tritonserver", backends, (tmp_path / "lib",), stub.parent)


@pytest.fixture
def server_directory():
    directory = ServerDirectory.create()
    yield directory
    directory.release()
    remove(directory.path)


def test_library_path_has_triton_and_libpython(installation, server_directory):
    entries = server_environment(installation, server_directory)["LD_LIBRARY_PATH"].split(os.pathsep)
    assert entries[:2] == [str(installation.library_directories[0]), str(shared_libpython().parent)]


def test_libraries_are_preloaded_before_the_users_own(installation, server_directory, monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "/mine.so")
    environment = server_environment(installation, server_directory)
    for variable in ("LD_PRELOAD", "INFLIGHT_STUB_PRELOAD"):
        *ours, last = environment[variable].split(":")
        assert last == "/mine.so"
        assert ours and all(Path(library).parent == server_directory.path for library in ours)
    assert not set(environment["LD_PRELOAD"].split(":")) & set(environment["INFLIGHT_STUB_PRELOAD"].split(":")[:-1])


@pytest.mark.parametrize(("others", "left"), [("", ""), (":libdl.so.2", "LD_PRELOAD=libdl.so.2\n")])
def test_what_the_server_starts_is_started_without_the_preloaded_library(others, left):
    shell = subprocess.run(
        ["/bin/sh", "-c", "env | grep ^LD_PRELOAD= || true"],
        env={"LD_PRELOAD": f"{find_installed('libinflight_preload.so')}{others}", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (shell.stdout, shell.stderr) == (left, "")


def test_this_interpreter_is_the_first_on_the_path(installation, server_directory):
    entries = server_environment(installation, server_directory)["PATH"].split(os.pathsep)
    assert entries[0] == str(Path(sys.executable).parent)


def test_python_without_shared_library_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(environment.sysconfig, "get_config_vars", lambda: {"LIBDIR": str(tmp_path)})
    monkeypatch.setattr(environment.sys, "base_prefix", str(tmp_path))
    with pytest.raises(InflightError, match=r"has no shared libpython3\.\d+\.so\.1\.0.*apt install libpython3"):
        shared_libpython()


def test_backend_answers_to_both_names(installation, tmp_path):
    library = tmp_path / "libtriton_inflight.so"
    library.write_text("library")
    directory = tmp_path / "prepared"
    directory.mkdir()
    prepare_backend_directory(directory, installation, library)
    assert (directory / "inflight" / "libtriton_inflight.so").read_text() == "library"
    assert (directory / "tensorrtllm" / "libtriton_tensorrtllm.so").read_text() == "library"


def test_python_backend_finds_our_stub_beside_itself(installation, tmp_path):
    directory = tmp_path / "prepared"
    directory.mkdir()
    prepare_backend_directory(directory, installation, tmp_path / "library.so")
    assert os.access(directory / "python" / "triton_python_backend_stub", os.X_OK)
    assert (directory / "python" / "libtriton_python.so").is_file()
    assert (directory / "onnx" / "x.so").is_file()


def test_our_stub_starts_the_one_of_this_interpreter(installation, server_directory):
    environment = server_environment(installation, server_directory)
    assert Path(environment["INFLIGHT_STUB"]).read_text() == "triton_python_backend_stub"


def test_python_version_without_stub_is_refused(installation, tmp_path):
    next(installation.stubs.iterdir()).rename(tmp_path / "2.7")
    with pytest.raises(InflightError, match="use Python 3.10, 3.11 or 3.12"):
        find_stub(installation)


def test_port_zero_is_any_free_port():
    ports = choose_ports(0, 0, 0)
    assert len({ports.http, ports.grpc, ports.metrics}) == 3


def test_taken_port_is_named():
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(InflightError, match=f"grpc port {port} cannot be used .*--grpc_port"):
            choose_ports(0, port, 0)


def test_impossible_port_is_refused():
    with pytest.raises(InflightError, match="http port 70000 cannot be used"):
        choose_ports(70000, 0, 0)
