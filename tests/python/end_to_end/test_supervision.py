"""The launcher over a whole server: it starts again what has died, and ends each request when it is told to stop."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import http_client
import prometheus
import pytest
from python_models import TIMEOUT, wait_until

STREAMS = 32
MAX_SEQ_LEN = 128 * 1024
ENDLESS = {"text_input": "a b c", "stream": True, "max_tokens": MAX_SEQ_LEN - 16, "end_id": -1}
NESTED = b"[" * 1_000_000


@dataclass
class Launched:
    process: subprocess.Popen
    port: int
    metrics_port: int
    log: Path

    @property
    def server(self) -> int:
        """tritonserver's process id."""
        (guardian,) = children(self.process.pid)
        (server,) = children(guardian)
        return server

    def stub(self, model: str) -> int:
        """The process of a Python model."""
        return next(child for child in children(self.server) if f"{model}_0_0" in command_line(child))

    def next_line(self) -> str:
        return self.process.stderr.readline()

    def metric(self, name: str, label: str = "") -> float:
        return prometheus.samples(self.metrics_port, "tensorrt_llm")[name, label]

    def restarts(self) -> float:
        return self.metric("inflight_server_restarts_total")


def children(process: int) -> list[int]:
    files = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def command_line(process: int) -> list[str]:
    return Path(f"/proc/{process}/cmdline").read_text().split("\0")


def launch(repository: Path, *options: str) -> Launched:
    process = subprocess.Popen(
        [sys.executable, "-m", "inflight.launcher.command", f"--model_repo={repository}", *options]
        + [f"--{name}_port=0" for name in ("http", "grpc", "metrics")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ready = process.stdout.readline()
    match = re.fullmatch(r"ready: HTTP (\d+), gRPC \d+, metrics (\d+); log: (.*)\n", ready)
    assert match, ready + process.stderr.read()
    assert process.stderr.readline() == f"launch_server: starting; log: {match[3]}\n"
    return Launched(process, int(match[1]), int(match[2]), Path(match[3]))


@pytest.fixture(scope="module")
def launched(tiny_directory, tmp_path_factory, make_engine, make_repository):
    """Half of the streams run at once, for minutes; the others wait."""
    model = shutil.copytree(tiny_directory("llama-multi-query"), tmp_path_factory.mktemp("long") / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": MAX_SEQ_LEN}))
    engine = make_engine(
        model, "float32", max_batch_size=STREAMS // 2, max_num_tokens=64, max_seq_len=MAX_SEQ_LEN, kv_cache_memory=2**27
    )
    repository = make_repository(
        engine, batch_scheduler_policy="max_utilization", max_responses_per_second=20, stats_check_period_ms=5
    )
    launched = launch(repository, "--exit-timeout=0")
    yield launched
    if launched.process.poll() is None:
        launched.process.terminate()
        launched.process.wait(TIMEOUT)


def test_deeply_nested_json_is_answered(launched):
    """Triton parses JSON by recursion: with the stacks that threads usually have, this ended the server."""
    server = launched.server
    for path in ("ensemble/generate", "ensemble/generate_stream", "preprocessing/infer"):
        answer = http_client.post(launched.port, f"/v2/models/{path}", NESTED)
        assert answer.status in (400, 500) and "failed to parse" in answer.error
    assert launched.server == server


def test_server_that_dies_by_a_signal_is_started_again(launched):
    before = launched.restarts()
    os.kill(launched.server, signal.SIGSEGV)
    assert re.fullmatch(
        rf"launch_server: tritonserver died of SIGSEGV; restart \d of 5 in \d+ s \(log: {launched.log}\)\n",
        launched.next_line(),
    )
    assert launched.next_line() == "launch_server: ready again\n"
    assert http_client.generate(launched.port, {"text_input": "a b c", "max_tokens": 2})["text_output"]
    assert launched.restarts() == before + 1


def test_server_whose_python_model_has_lost_its_process_is_started_again(launched):
    before = launched.restarts()
    os.kill(launched.stub("preprocessing"), signal.SIGKILL)
    # It has no name if it died before the launcher's first look at it.
    assert re.match(
        r"launch_server: the process of the Python model (preprocessing_0_0|process \d+) has died; restart ",
        launched.next_line(),
    )
    assert launched.next_line() == "launch_server: ready again\n"
    assert http_client.generate(launched.port, {"text_input": "a b c", "max_tokens": 2})["text_output"]
    assert launched.restarts() == before + 1


def test_stop_ends_each_stream_with_an_error_event(launched):
    events: list[list[dict]] = [[] for _ in range(STREAMS)]

    def read(stream: list[dict]) -> None:
        """The status is that of the first event: not 200 for a request that waits."""
        with http_client.request(launched.port, "/v2/models/ensemble/generate_stream", ENDLESS) as connection:
            for line in connection.getresponse():
                if line.startswith(b"data:"):
                    stream.append(json.loads(line.removeprefix(b"data:")))

    threads = [threading.Thread(target=read, args=(stream,)) for stream in events]
    for thread in threads:
        thread.start()
    wait_until(lambda: sum(map(bool, events)) >= STREAMS // 2)
    wait_until(lambda: launched.metric("nv_trt_llm_request_metrics", "waiting"))
    launched.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(TIMEOUT)
    assert launched.process.wait(TIMEOUT) == 0
    assert launched.next_line() == "launch_server: stopped by SIGTERM\n"
    assert all(stream and "the server is shutting down" in stream[-1].get("error", "") for stream in events)
    assert not launched.log.exists()
