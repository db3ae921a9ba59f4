"""Nothing of a server outlives its launcher, however that ends. No tritonserver is needed: a shell stands for it."""

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest
from python_models import TIMEOUT, processes_with, wait_until

from inflight.errors import InflightError
from inflight.launcher import server_directory
from inflight.launcher.guarded_process import GuardedProcess
from inflight.launcher.server_directory import ServerDirectory


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def guarded(temporary: Path, script: str, **options) -> GuardedProcess:
    """Runs `script` in a shell; temporary / "log" has its output."""
    directory = ServerDirectory.create()
    with open(temporary / "log", "wb") as log:
        return GuardedProcess(["/bin/sh", "-c", script, str(temporary)], dict(os.environ), log, directory, **options)


def test_exit_status_and_output_of_the_process(temporary):
    process = guarded(temporary, "echo $$; exit 7")
    assert process.wait() == 7
    assert int((temporary / "log").read_text()) == process.pid
    assert not list(temporary.glob("inflight-server-*"))


def test_signals_are_passed_on(temporary):
    process = guarded(temporary, "trap 'exit 5' USR1; echo ready; while :; do sleep 0.05; done")
    wait_until(lambda: (temporary / "log").read_text())
    assert process.wait(0) is None
    process.send_signal(signal.SIGUSR1)
    assert process.wait() == 5
    process.send_signal(signal.SIGUSR1)  # too late, and no error


def test_death_by_a_signal_is_told_apart(temporary):
    assert guarded(temporary, "kill -SEGV $$").wait() == -signal.SIGSEGV


def test_children_of_a_process_that_died_are_killed(temporary):
    process = guarded(temporary, "setsid sleep 1000 & setsid sh -c 'trap \"\" TERM; sleep 1000; true' & kill -KILL $$")
    assert process.wait() == -signal.SIGKILL
    assert not processes_with(str(temporary))


def test_kill_ends_the_process_and_its_children(temporary):
    process = guarded(temporary, "trap '' TERM; sleep 1000 & sleep 1000; true")
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not processes_with(str(temporary))


def test_program_that_cannot_be_started_is_an_error(temporary):
    directory = ServerDirectory.create()
    with open(os.devnull, "wb") as log, pytest.raises(InflightError, match="cannot start /nowhere: .*No such file"):
        GuardedProcess(["/nowhere"], dict(os.environ), log, directory)
    assert not list(temporary.glob("inflight-server-*"))


def test_threads_get_the_stack_that_is_asked_for(temporary):
    guarded(temporary, "ulimit -S -s", stack_bytes=2**24).wait()
    assert (temporary / "log").read_text() == f"{2**14}\n"


def test_guardian_that_is_killed_takes_its_process_along(temporary):
    process = guarded(temporary, "sleep 1000 & sleep 1000; true")
    os.kill(process._guardian.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    wait_until(lambda: not processes_with(str(temporary)))
    assert not list(temporary.glob("inflight-server-*"))


def launcher(temporary: Path, *, keeps_order_open: bool = False) -> subprocess.Popen:
    """A launcher in a process of its own, which has started what runs for a long time."""
    program = textwrap.dedent(f"""
        import os, tempfile, time
        from pathlib import Path
        from test_guardian import guarded
        tempfile.tempdir = {str(temporary)!r}
        process = guarded(Path({str(temporary)!r}), "setsid sleep 1000 & sleep 1000; true")
        if {keeps_order_open} and os.fork() == 0:
            time.sleep(1000)
        print("started", flush=True)
        time.sleep(1000)
    """)
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "started\n"
    return process


def test_launcher_that_is_killed_leaves_nothing(temporary):
    process = launcher(temporary)
    shared = Path("/dev/shm") / server_directory.shared_memory_prefix(next(temporary.glob("inflight-server-*")))
    region = shared.with_name(shared.name + "region")
    region.write_text("")
    process.kill()
    process.wait(TIMEOUT)
    wait_until(lambda: not list(temporary.glob("inflight-server-*")))
    assert not region.exists()
    assert not processes_with("sleep\0001000\0" + str(temporary))


def test_launcher_with_a_forked_child_leaves_nothing(temporary):
    """The child has the launcher's end of the pipe to the guardian."""
    process = launcher(temporary, keeps_order_open=True)
    process.kill()
    process.wait(TIMEOUT)
    wait_until(lambda: not list(temporary.glob("inflight-server-*")))
    for child in processes_with(str(temporary)):
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_next_start_removes_what_a_killed_launcher_and_guardian_left(temporary):
    left = ServerDirectory.create()
    made = temporary / "python_env_x"
    made.mkdir()
    (left.made / made.name).symlink_to(made)
    region = Path("/dev/shm") / f"{left.shared_memory_prefix}region"
    region.write_text("")
    used = ServerDirectory.create()
    assert left.path.exists() and region.exists()  # its lock is held
    left.release()
    ServerDirectory.create().release()
    assert not left.path.exists() and not made.exists() and not region.exists()
    assert used.path.exists()
    used.release()
    server_directory.remove(used.path)


def test_directory_with_a_space_is_not_used(tmp_path, monkeypatch):
    for name in ("my files", "josé"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))
        directory = ServerDirectory.create()
        assert directory.path.parent == Path("/tmp")
        directory.release()
        server_directory.remove(directory.path)
