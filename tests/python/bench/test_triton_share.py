"""What benchmarks/triton_share.py counts: CPU time, memory, Triton's statistics. The rest needs a quiet machine."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from process_times import command, cpu_seconds, descendants, memory_bytes, thread_cpu_seconds  # noqa: E402
from triton_share import median_costs, model_times  # noqa: E402


def test_a_process_that_computes_is_found_and_its_time_counted():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as parent:
        try:
            busy = wait_for(lambda: next((pid for pid in descendants(parent.pid) if cpu_seconds(pid) > 0.1), None))
            assert busy in descendants(os.getpid()) and "while True" in command(busy)
            assert sum(thread_cpu_seconds(busy).values()) >= 0.1
            assert cpu_seconds(parent.pid) < cpu_seconds(busy)
        finally:
            os.killpg(parent.pid, 9)
    assert wait_for(lambda: cpu_seconds(busy) == 0.0 and command(busy) == "")


def test_memory_is_in_bytes():
    memory = memory_bytes(os.getpid())
    assert 1 << 20 < memory["proportional"] <= memory["resident"] <= memory["peak"] < 1 << 40


def test_triton_times_are_those_of_the_run_by_request():
    def statistics(nanoseconds: int) -> dict:
        parts = ("queue", "compute_input", "compute_infer", "compute_output")
        return {"postprocessing": {part: {"count": 7, "ns": nanoseconds} for part in parts}}

    times = model_times(statistics(1_000_000), statistics(9_000_000), requests=4)
    assert times == {
        "postprocessing": dict.fromkeys(("queue", "compute_input", "compute_infer", "compute_output"), 2.0)
    }


def test_medians_are_of_each_figure():
    runs = [
        {"cost": {"a": 1.0, "b": {"c": 9.0}}},
        {"cost": {"a": 5.0, "b": {"c": 7.0}}},
        {"cost": {"a": 3.0, "b": {"c": 8.0}}},
    ]
    assert median_costs(runs, "cost") == {"a": 3.0, "b": {"c": 8.0}}


def test_the_engine_alone_answers_for_its_memory(tiny_engine):
    engine = tiny_engine("llama", max_batch_size=8, max_num_tokens=64)
    arguments = [BENCHMARKS / "engine_alone.py", engine, 4, 0.5, 32, 16]
    result = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    assert figures["tokens_per_s"] > 0 and figures["cpu_ms_per_request"]["engine"] >= 0
    memory = figures["memory_bytes"]
    assert memory["share"] == pytest.approx(memory["resident"] / (memory["weights"] + memory["kv_cache"]))


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value
