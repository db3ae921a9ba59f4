"""Upstream's ways to start a server: its launcher's name and options, and a tritonserver of one's own."""

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from importlib.util import find_spec
from pathlib import Path

import http_client
import pytest
from python_models import ECHO, TIMEOUT, processes_with, wait_until, write_model

from inflight.cli import main
from inflight.errors import InflightError
from inflight.launcher.command import parse_arguments
from inflight.launcher.install import install_backend
from inflight.launcher.tritonserver import TritonInstallation

needs_server = pytest.mark.skipif(find_spec("pytriton") is None, reason="nvidia-pytriton is not installed")
SCRIPT = Path(__file__).parents[3] / "scripts" / "launch_triton_server.py"
# Of 0.5 to 0.21 and later.
OPTIONS = (
    "--world_size 1 --tritonserver /opt/tritonserver/bin/tritonserver --model_repo repository -f --force --log"
    " --log-file triton_log.txt --grpc_port 8001 --http_port 8000 --metrics_port 8002"
    " --tensorrt_llm_model_name tensorrt_llm,tensorrt_llm_2 --multi-model --oversubscribe --disable-spawn-processes"
    " --multimodal_gpu0_cuda_mem_pool_bytes 300000000 --no-mpi --trtllm_llmapi_launch --exit_timeout 30"
)


def test_every_option_of_upstreams_launcher_is_known():
    options = parse_arguments(OPTIONS.split())
    assert options.model_repo == "repository" and options.exit_timeout == 30 and options.log_file == "triton_log.txt"


def test_what_is_wrong_with_the_options_is_said_at_once():
    done = subprocess.run([sys.executable, SCRIPT, "--world_siz=1"], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 2 and "--model_repo" in done.stderr


@needs_server
def test_the_launcher_returns_and_the_server_stays(tmp_path):
    write_model(tmp_path / "repository", "works", ECHO)
    output = tmp_path / "output"
    with open(output, "w") as file:
        command = [sys.executable, SCRIPT, "--world_size=1", f"--model_repo={tmp_path / 'repository'}"]
        ports = ["--http_port=0", "--grpc_port=0", "--metrics_port=0"]
        subprocess.run([*command, *ports], stdout=file, stderr=file, check=True, timeout=TIMEOUT)
    process = int(re.search(r"starting as process (\d+);", output.read_text())[1])
    try:
        wait_until(lambda: "ready: HTTP " in output.read_text())
        port = int(re.search(r"ready: HTTP (\d+)", output.read_text())[1])
        assert http_client.generate(port, {"text_input": "a"}, "works")["text_output"] == "a"
    finally:
        os.kill(process, signal.SIGTERM)
    wait_until(lambda: not processes_with(str(tmp_path / "repository")))
    assert "stopped by SIGTERM" in output.read_text()


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]


@needs_server
def test_a_plain_tritonserver_serves_with_the_installed_backend(tiny_engine, make_repository, tmp_path, capfd):
    """Started as upstream's launcher does, for each of its ranks."""
    repository = make_repository(tiny_engine("llama"), triton_backend="tensorrtllm")
    assert main(["install-backend", str(tmp_path / "backends")]) == 0
    program = tmp_path / "backends" / "tritonserver"
    assert f"next: {program} --model-repository=REPOSITORY" in capfd.readouterr().out
    http, grpc, metrics = free_ports(3)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INFLIGHT_")}
    log = open(tmp_path / "log", "w")  # noqa: SIM115
    process = subprocess.Popen(
        [
            program, f"--model-repository={repository}", f"--grpc-port={grpc}", f"--http-port={http}",
            f"--metrics-port={metrics}", "--disable-auto-complete-config",
            f"--backend-config=python,shm-region-prefix-name=prefix{os.getpid()}_",
        ],
        env=environment, stdout=log, stderr=log,
    )  # fmt: skip
    try:
        wait_until(lambda: process.poll() is not None or "Started Metrics Service" in (tmp_path / "log").read_text())
        assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
        wait_until(
            lambda: (
                http_client.post(http, "/v2/models/ensemble/generate", {"text_input": "a", "max_tokens": 2}).status
                == 200
            )
        )
    finally:
        process.terminate()
        process.wait(TIMEOUT)
        log.close()


def test_another_backend_of_that_name_is_left_alone(tmp_path):
    (tmp_path / "backends" / "tensorrtllm").mkdir(parents=True)
    library = tmp_path / "backends" / "tensorrtllm" / "libtriton_tensorrtllm.so"
    library.write_bytes(b"theirs")
    installation = TritonInstallation(tmp_path / "bin" / "tritonserver", tmp_path / "backends", (), None)
    with pytest.raises(InflightError, match="tensorrtllm is another backend: move it away"):
        install_backend(tmp_path / "backends", installation)
    assert library.read_bytes() == b"theirs"


def test_tritons_own_folder_keeps_its_python_backend(tmp_path):
    """Twice: what an earlier call made is replaced."""
    (tmp_path / "backends" / "python").mkdir(parents=True)
    (tmp_path / "backends" / "python" / "triton_python_backend_stub").write_text("theirs")
    installation = TritonInstallation(tmp_path / "bin" / "tritonserver", tmp_path / "backends", (), None)
    for _ in range(2):
        assert install_backend(tmp_path / "backends", installation) == tmp_path / "backends" / "tritonserver"
    assert (tmp_path / "backends" / "python" / "triton_python_backend_stub").read_text() == "theirs"
    for name in ("inflight", "tensorrtllm"):
        assert (tmp_path / "backends" / name / f"libtriton_{name}.so").resolve().is_file()


def test_a_folder_that_triton_could_not_take_is_refused(tmp_path):
    installation = TritonInstallation(tmp_path / "bin" / "tritonserver", tmp_path / "theirs", (), None)
    with pytest.raises(InflightError, match="takes no backend directory with spaces"):
        install_backend(tmp_path / "my backends", installation)
