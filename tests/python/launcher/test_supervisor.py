"""What is started again, how often, and what ends the launcher: decided without a real server."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from inflight.errors import InflightError
from inflight.launcher.options import RestartPolicy
from inflight.launcher.supervisor import Supervisor

AT_ONCE = RestartPolicy(max_restarts=3, first_delay=0.0)


class Stop:
    """A signal comes when `comes` says so."""

    exit_status = 130

    def __init__(self, comes: Callable[[], bool] = lambda: False):
        self._comes = comes

    def __bool__(self) -> bool:
        return self._comes()


NEVER = Stop()


class Server:
    """Each start is ready and ends with the next of `ends`: an exit status, or an error in the place of readiness."""

    log_file = Path("log")
    pid = 2**30  # nobody's

    def __init__(self, *ends: int | str):
        self._ends = list(ends)
        self.starts = self.stops = 0

    def start(self) -> None:
        self.starts += 1

    def wait_until_ready(self, timeout: float, give_up: Callable[[], bool]) -> bool:
        if isinstance(self._ends[0], str):
            raise InflightError(self._ends.pop(0))
        return not give_up()

    def wait(self, timeout: float | None = None) -> int:
        return self._ends.pop(0)

    def stop(self) -> None:
        self.stops += 1


def run(server: Server, policy: RestartPolicy = AT_ONCE, stop: Stop = NEVER) -> tuple[int, list[str]]:
    """The exit status, and what was said."""
    said: list[str] = []
    status = Supervisor(server, stop, policy, said.append).run(1.0, on_ready=lambda: said.append("ready"))
    return status, said


def test_server_that_ends_in_good_order_is_not_started_again():
    server = Server(0)
    assert run(server) == (0, ["ready"])
    assert server.starts == 1


def test_server_that_dies_by_a_signal_is_started_again():
    server = Server(-signal.SIGSEGV, 0)
    status, said = run(server)
    assert status == 0 and server.starts == 2
    assert said == ["ready", "tritonserver died of SIGSEGV; restart 1 of 3 in 0 s (log: log)", "ready again"]


def test_server_that_lost_its_engine_is_started_again():
    server = Server(70, 0)  # kEngineLostStatus of backend/triton/shutdown.h
    status, said = run(server)
    assert status == 0 and server.starts == 2
    assert said[1] == "tritonserver lost its engine; restart 1 of 3 in 0 s (log: log)"


def test_start_that_fails_counts_as_well():
    server = Server(-signal.SIGABRT, "no memory", 0)
    _, said = run(server)
    assert said[1:3] == [
        "tritonserver died of SIGABRT; restart 1 of 3 in 0 s (log: log)",
        "no memory; restart 2 of 3 in 0 s (log: log)",
    ]
    assert server.starts == 3


def test_restarts_are_bounded():
    server = Server(*[-signal.SIGKILL] * 5)
    with pytest.raises(InflightError, match="tritonserver died of SIGKILL; it was restarted 3 times in a row; .* log"):
        run(server)
    assert server.starts == 4


def test_server_that_was_stable_begins_a_new_row():
    server = Server(*[-signal.SIGKILL] * 5, 0)
    status, _ = run(server, RestartPolicy(max_restarts=1, first_delay=0.0, stable_after=-1.0))
    assert (status, server.starts) == (0, 6)


def test_no_restart_at_all():
    server = Server(-signal.SIGSEGV)
    with pytest.raises(InflightError, match="died of SIGSEGV; it is not restarted"):
        run(server, RestartPolicy(max_restarts=0))
    assert server.starts == 1


def test_server_that_ends_by_itself_with_a_failure_is_not_started_again():
    with pytest.raises(InflightError, match="tritonserver ended with status 1; see its log"):
        run(Server(1))


def test_first_start_that_fails_is_the_answer():
    with pytest.raises(InflightError, match="^no model$"):
        run(Server("no model"))


def test_delays_double():
    assert [RestartPolicy(first_delay=1.0).delay(restart) for restart in (1, 2, 3)] == [1, 2, 4]


def test_signal_before_readiness_and_after():
    early = Server(0)
    assert run(early, stop=Stop(lambda: early.starts > 0)) == (130, [])
    assert early.stops == 1
    ready: list[str] = []
    late = Server(0)
    supervisor = Supervisor(late, Stop(lambda: bool(ready)), AT_ONCE, ready.append)
    assert supervisor.run(1.0, on_ready=lambda: ready.append("ready")) == 0
    assert late.stops == 1
