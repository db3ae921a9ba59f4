"""Small Python models for a real tritonserver, and what is to be seen of a server's processes and files."""

import os
import time
from collections.abc import Callable
from pathlib import Path

CONFIG = """
backend: "python"
input [ { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "text_output" data_type: TYPE_STRING dims: [ 1 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
"""
ECHO = """
import inflight
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        texts = [pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("text_output", text)]) for text in texts]
"""
FAILS = "class TritonPythonModel:\n    def initialize(self, args): raise ValueError('this one cannot')\n"
TIMEOUT = 60.0  # seconds: a safety net


def write_model(repository: Path, name: str, source: str) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(CONFIG)
    (repository / name / "1" / "model.py").write_text(source)


def processes_with(text: str) -> list[int]:
    """The processes, other than this one, whose command line or environment has `text`."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            seen = (directory / "cmdline").read_bytes() + (directory / "environ").read_bytes()
        except OSError:
            continue
        if text.encode() in seen and int(directory.name) != os.getpid():
            found.append(int(directory.name))
    return found


def wait_until(condition: Callable[[], object], timeout: float = TIMEOUT) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
