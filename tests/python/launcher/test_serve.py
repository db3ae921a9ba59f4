"""`inflight serve` with what a user gives it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec

import http_client
import pytest
from python_models import TIMEOUT

from inflight.checkpoint import config as checkpoint_config
from inflight.cli import main
from inflight.errors import InflightError
from inflight.launcher.served_repository import served_repository


def test_repository_is_served_as_it_is(tiny_engine, make_repository):
    repository = make_repository(tiny_engine("llama"))
    with served_repository(repository) as served:
        assert served == repository


def test_repository_of_an_engine_goes_with_its_server(tiny_engine):
    with served_repository(tiny_engine("llama")) as repository:
        assert str(tiny_engine("llama")) in (repository / "tensorrt_llm" / "config.pbtxt").read_text()
    assert not repository.parent.exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"format": checkpoint_config.FORMAT}, "is a checkpoint: make an engine of it with `inflight build .*given"),
        ({"model_type": "llama"}, "neither a model repository .* nor an engine: .*`inflight convert .*given --out"),
    ],
)
def test_what_is_no_engine_yet_says_how_it_becomes_one(tmp_path, config, message):
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InflightError, match=message), served_repository(tmp_path / "given"):
        pass


def test_missing_path_is_one_line(tmp_path, capsys):
    assert main(["serve", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err == f"inflight serve: {tmp_path / 'nowhere'} does not exist\n"


def test_missing_extra_is_named(tiny_engine):
    program = (
        "import sys\n"
        "sys.modules['tritonclient'] = None\n"  # as if it were not installed
        "from inflight.cli import main\n"
        f"sys.exit(main(['serve', {str(tiny_engine('llama'))!r}]))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT)
    assert result.returncode == 1
    assert result.stderr.startswith("inflight serve: the server needs the Python package tritonclient")
    assert "pip install '.[server]'" in result.stderr and len(result.stderr.splitlines()) == 1


def test_help_documents_options_and_exit_status(capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for documented in ("REPOSITORY|ENGINE", "--http_port", "--no-restart", "--exit-timeout", "Exit status: 0"):
        assert documented in text


@pytest.mark.skipif(find_spec("pytriton") is None, reason="nvidia-pytriton is not installed")
def test_engine_is_served_from_any_directory(tiny_engine, tmp_path):
    engine = shutil.copytree(tiny_engine("llama"), tmp_path / "ingénieur 文件" / "engine")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "inflight.cli", "serve", engine.name]
    process = subprocess.Popen(
        [*command, "--http-port=0", "--grpc-port=0", "--metrics-port=0"],
        cwd=engine.parent,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ready = re.match(r"ready: HTTP (\d+), ", process.stdout.readline())
    assert ready, process.stderr.read()
    assert http_client.generate(int(ready[1]), {"text_input": "a b c", "max_tokens": 2})["text_output"]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert errors.splitlines()[-1] == "inflight serve: stopped by SIGINT"
    assert not list(temporary.iterdir())
