"""What benchmarks/soak.py counts: descriptors by kind, and growth. The load itself needs minutes."""

import os
import socket
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

from process_times import descriptors  # noqa: E402
from soak import growth  # noqa: E402


def test_descriptors_are_counted_by_kind():
    before = descriptors(os.getpid(), {})
    with socket.create_server(("127.0.0.1", 0)) as server, open(__file__) as _, socket.socket() as closed:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0] as accepted, socket.socketpair()[0]:
            found = descriptors(os.getpid(), {port: "http"}) - before
            assert accepted.getsockname()[1] == port and closed.fileno() >= 0
    assert found["http LISTEN"] == 1 and found["http ESTABLISHED"] == 1 and found["tcp ESTABLISHED"] == 1
    assert found["file"] == 1 and found["socket"] == 1  # one that never was connected is in no table
    assert found["unix"] >= 1


def test_growth_is_that_of_the_second_half():
    def sample(minute: int) -> dict:
        held = 1000 if minute < 10 else 60 + 5 * minute
        return {"seconds": 60 * minute, "processes": {"x": {"descriptors": {"a": held}, "memory": {"resident": 7}}}}

    slopes = growth([sample(minute) for minute in range(20)])["x"]
    assert slopes["descriptors"] == pytest.approx(300) and slopes["resident"] == pytest.approx(0, abs=1e-6)
