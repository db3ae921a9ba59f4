"""A real tritonserver over small Python models: start, ready, failure, stop, and nothing left behind."""

import http.client
import socket
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest
from python_models import ECHO, FAILS, processes_with, write_model

from inflight.errors import InflightError
from inflight.launcher.command import main, parse_arguments
from inflight.launcher.server import TritonServer

pytestmark = pytest.mark.skipif(find_spec("pytriton") is None, reason="nvidia-pytriton is not installed")


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """Where servers keep what is temporary."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr("tempfile.tempdir", None)
    return directory


@pytest.fixture
def working(tmp_path, temporary) -> Path:
    write_model(tmp_path / "repository", "works", ECHO)
    return tmp_path / "repository"


def test_server_is_ready_in_its_block_and_gone_after_it(working, temporary):
    with TritonServer(working) as server:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/v2/models/works/ready") as response:
            assert response.status == 200
        assert processes_with(str(working))
        (directory,) = temporary.glob("inflight-server-*")
        made = [link.readlink() for link in (directory / "made").iterdir()]
        assert made and all(path.is_dir() for path in made)
        regions = list(Path("/dev/shm").glob(f"inflight_{directory.name.removeprefix('inflight-server-')}_*"))
        assert regions
    assert server.wait(0) == 0
    assert not processes_with(str(working))
    assert not list(temporary.iterdir())
    assert not [path for path in [*made, *regions] if path.exists()]


def test_model_that_does_not_load_is_named_with_its_own_error(working):
    write_model(working, "fails", FAILS)
    with pytest.raises(InflightError) as raised, TritonServer(working):
        pass
    assert "model fails: ValueError: this one cannot\nfull log: " in str(raised.value)
    assert "works" not in str(raised.value).split("full log")[0]
    log = Path(str(raised.value).rsplit("full log: ", 1)[1])
    assert "failed to load 'fails'" in log.read_text()
    assert not processes_with(str(working))


def test_taken_port_is_named_before_the_start(working):
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(InflightError, match=f"http port {port}"):
            TritonServer(working, http_port=port)


def test_missing_repository_is_refused(tmp_path):
    with pytest.raises(InflightError, match="nowhere is not a directory"):
        TritonServer(tmp_path / "nowhere")


def test_executable_that_cannot_run_is_named(working, tmp_path, temporary):
    root = tmp_path / "triton"
    for path in ("bin/tritonserver", "backends/python/libtriton_python.so"):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text("no program")
    (root / "bin" / "tritonserver").chmod(0o755)
    server = TritonServer(working, tritonserver=root)
    with pytest.raises(InflightError, match="cannot start .*/bin/tritonserver: .*Exec format error"):
        server.start()
    assert not list(temporary.glob("inflight-server-*"))


def test_log_file_is_kept_when_named(working, tmp_path):
    with TritonServer(working, log_file=tmp_path / "triton.log"):
        pass
    assert "Started HTTPService" in (tmp_path / "triton.log").read_text()


def test_open_connection_does_not_hold_the_stop_and_leaves_nothing(working, temporary):
    with TritonServer(working, exit_timeout=0) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.http_port)
        connection.request("GET", "/v2/health/live")
        assert connection.getresponse().read() == b""
        (directory,) = temporary.glob("inflight-server-*")
        made = [link.readlink() for link in (directory / "made").iterdir()]
    assert not processes_with(str(working))
    assert not list(temporary.iterdir())
    assert not [path for path in made if path.exists()]
    connection.close()


def test_waiting_for_readiness_can_be_given_up(working):
    server = TritonServer(working)
    server.start()
    assert not server.wait_until_ready(give_up=lambda: True)
    server.stop()
    assert not processes_with(str(working))


def test_server_can_be_started_again(working):
    server = TritonServer(working)
    for _ in range(2):
        with server, urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/v2/health/ready") as response:
            assert response.status == 200


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
