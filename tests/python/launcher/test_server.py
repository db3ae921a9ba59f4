"""A real tritonserver over small Python models: start, ready, failure, signals, and nothing left behind."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

from inflight.errors import InflightError
from inflight.launcher.command import main, parse_arguments
from inflight.launcher.server import TritonServer

pytestmark = pytest.mark.skipif(find_spec("pytriton") is None, reason="nvidia-pytriton is not installed")

CONFIG = """
backend: "python"
input [ { name: "IN" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
"""
WORKS = "import inflight\nclass TritonPythonModel:\n    def execute(self, requests): return []\n"
FAILS = "class TritonPythonModel:\n    def initialize(self, args): raise ValueError('this one cannot')\n"
COMMAND = [sys.executable, "-m", "inflight.launcher.command", "--http_port=0", "--grpc_port=0", "--metrics_port=0"]


def write_model(repository: Path, name: str, source: str) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(CONFIG)
    (repository / name / "1" / "model.py").write_text(source)


@pytest.fixture
def working(tmp_path, monkeypatch) -> Path:
    write_model(tmp_path / "repository", "works", WORKS)
    return tmp_path / "repository"


def processes_with(text: str) -> list[str]:
    """Command lines of the processes that mention `text`."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line and int(file.parent.name) != os.getpid():
            found.append(line)
    return found


def wait_until_gone(text: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while processes_with(text):
        assert time.monotonic() < deadline, processes_with(text)
        time.sleep(0.1)


def test_server_is_ready_in_its_block_and_gone_after_it(working):
    with TritonServer(working) as server:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/v2/models/works/ready") as response:
            assert response.status == 200
        assert processes_with(str(working))
    wait_until_gone(str(working))
    assert server.wait(0) == 0
    assert not server.log_file.exists()
    assert not list(Path("/dev/shm").glob(f"{server._shm_prefix}*"))


def test_model_that_does_not_load_is_named_with_its_own_error(working):
    write_model(working, "fails", FAILS)
    with pytest.raises(InflightError) as raised, TritonServer(working):
        pass
    assert "model fails: ValueError: this one cannot\nfull log: " in str(raised.value)
    assert "works" not in str(raised.value).split("full log")[0]
    log = Path(str(raised.value).rsplit("full log: ", 1)[1])
    assert "failed to load 'fails'" in log.read_text()
    log.unlink()
    wait_until_gone(str(working))


def test_taken_port_is_named_before_the_start(working):
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(InflightError, match=f"http port {port}"):
            TritonServer(working, http_port=port)


def test_missing_repository_is_refused(tmp_path):
    with pytest.raises(InflightError, match="nowhere is not a directory"):
        TritonServer(tmp_path / "nowhere")


def test_log_file_is_kept_when_named(working, tmp_path):
    with TritonServer(working, log_file=tmp_path / "triton.log"):
        pass
    assert "Started HTTPService" in (tmp_path / "triton.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_forwards_signals_and_passes_the_exit_status_on(working, number):
    process = subprocess.Popen([*COMMAND, f"--model_repo={working}"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("ready: HTTP ")
    process.send_signal(number)
    assert process.wait(timeout=40) == 0
    wait_until_gone(str(working))


def test_repository_may_have_a_space_in_its_path(tmp_path):
    repository = tmp_path / "my models"
    write_model(repository, "works", WORKS)
    with (
        TritonServer(repository) as server,
        urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/v2/models/works/ready") as response,
    ):
        assert response.status == 200


def test_open_connection_delays_the_stop_by_the_exit_timeout_only(working):
    with TritonServer(working, exit_timeout=2) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.http_port)
        connection.request("GET", "/v2/health/live")
        assert connection.getresponse().read() == b""
    wait_until_gone(str(working))
    connection.close()


def test_server_ends_when_its_launcher_is_killed(working):
    process = subprocess.Popen([*COMMAND, f"--model_repo={working}"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("ready: HTTP ")
    process.kill()
    process.wait()
    wait_until_gone(str(working))


def test_command_reports_a_failure_in_one_message(tmp_path, capsys):
    assert main([f"--model_repo={tmp_path / 'nowhere'}"]) == 1
    assert capsys.readouterr().err == f"launch_server: model repository {tmp_path / 'nowhere'} is not a directory\n"


def test_several_ranks_are_refused(tmp_path, capsys):
    assert main(["--world_size=2", f"--model_repo={tmp_path}"]) == 1
    assert "--world_size is 2" in capsys.readouterr().err


def test_options_of_upstreams_launcher_are_understood():
    options = parse_arguments(
        "--world_size 1 --model_repo repo --http_port 1 --grpc_port 2 --metrics_port 3"
        " --tritonserver /t --log --log-file triton_log.txt --force".split()
    )
    assert (options.http_port, options.grpc_port, options.metrics_port) == (1, 2, 3)
    assert options.log and options.log_file == "triton_log.txt"
