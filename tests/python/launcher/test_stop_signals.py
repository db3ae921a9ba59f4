"""Ctrl-C and other signals, at any time: a command ends with the status that it documents, and its server too."""

import os
import random
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from python_models import ECHO, TIMEOUT, processes_with, wait_until, write_model

from inflight.launcher import server_directory
from inflight.launcher.stop_signals import StopSignals

needs_server = pytest.mark.skipif(find_spec("pytriton") is None, reason="nvidia-pytriton is not installed")

COMMAND = [sys.executable, "-m", "inflight.launcher.command", "--http_port=0", "--grpc_port=0", "--metrics_port=0"]
SCRIPTS = Path(__file__).parents[3] / "scripts"
STAGES = 4  # bounded: 500 delays were tried by hand


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("signals") / "repository"
    write_model(path, "works", ECHO)
    return path


def test_first_signal_is_noted_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as stop:
        assert not stop
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)  # at once: the same key press, forwarded twice
        assert stop and stop.name == "SIGTERM" and stop.exit_status == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_hangup_stays_ignored_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signal_while_modules_are_imported_is_not_lost(repository):
    """The handlers are there before the imports that take long."""
    program = (
        "import signal, sys\n"
        "class Raise:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'inflight.launcher.server': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Raise())\n"
        "from inflight.launcher.command import main\n"
        f"sys.exit(main(['--model_repo={repository}', '--http_port=0', '--grpc_port=0', '--metrics_port=0']))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT)
    assert result.returncode == 130
    assert result.stderr.endswith("launch_server: stopped by SIGINT before the server was ready\n")
    assert not processes_with(str(repository))


@needs_server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_a_ready_server_ends_it_with_status_0(repository, number):
    process = start(repository)
    assert process.stdout.readline().startswith("ready: HTTP ")
    process.send_signal(number)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert errors.endswith(f"launch_server: stopped by {number.name}\n")
    assert not processes_with(str(repository))


@needs_server
@pytest.mark.parametrize("stage", range(STAGES))
def test_signal_at_a_random_time_after_the_start_ends_the_server(repository, stage):
    """Random in what it meets, not in what it expects: the outcome depends on whether the server said "ready"."""
    process = start(repository)
    assert process.stderr.readline().startswith("launch_server: starting; log: ")
    try:
        process.wait(random.Random(stage).uniform(0, 1.5))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=TIMEOUT)
    if output.startswith("ready: "):
        assert (process.returncode, errors) == (0, "launch_server: stopped by SIGINT\n")
    else:
        assert (process.returncode, errors) == (130, "launch_server: stopped by SIGINT before the server was ready\n")
    assert not processes_with(str(repository))


@needs_server
def test_killed_launcher_leaves_nothing(repository, tmp_path):
    process = start(repository, TMPDIR=str(tmp_path))
    assert process.stdout.readline().startswith("ready: HTTP ")
    (directory,) = tmp_path.glob("inflight-server-*")
    made = [link.readlink() for link in (directory / "made").iterdir()]
    assert made
    process.kill()
    process.communicate(timeout=TIMEOUT)
    wait_until(lambda: not directory.exists())
    assert not processes_with(str(repository))
    assert not [path for path in made if path.exists()]
    assert not list(Path("/dev/shm").glob(f"{server_directory.shared_memory_prefix(directory)}*"))


def start(repository: Path, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, f"--model_repo={repository}"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("script", "module", "status", "message"),
    [
        ("inflight", "inflight", -signal.SIGINT, ""),
        ("inflight", "inflight.cli", 130, "inflight: stopped by SIGINT\n"),
        ("launch_server.py", "inflight", -signal.SIGINT, ""),
        ("launch_server.py", "inflight.launcher.options", 130, "inflight: stopped by SIGINT\n"),
    ],
)
def test_signal_before_a_command_has_its_handlers_ends_it(script, module, status, message):
    """From the first line of ours on; what is before is the interpreter's. KeyboardInterrupt would have been lost in a
    callback at the end of an import."""
    program = (
        "import runpy, signal, sys\n"
        "class Raise:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Raise())\n"
    )
    program += f"runpy.run_path({str(SCRIPTS / script)!r}, run_name='__main__')\n"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT)
    assert (result.returncode, result.stderr) == (status, message)
