"""benchmarks/prefix_reuse.py and scheduler_policies.py measure what they say, here on an engine of no interest."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def engine(tiny_engine):
    return tiny_engine("llama", max_batch_size=8, max_num_tokens=64)


def run(name, *arguments):
    command = [sys.executable, str(BENCHMARKS / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_prefixes_are_found_where_the_benchmark_says(engine, tmp_path):
    report = tmp_path / "report.json"
    result = run("prefix_reuse.py", "--engine", engine, "--prefix", 200, "--repeats", 3, "--json", report)
    assert result.returncode == 0, result.stderr
    written = json.loads(report.read_text())
    assert written["options"]["prefix"] == 200 and written["machine"]["cores"] >= 1
    assert [len(runs) for runs in written["results"]["runs_ms"].values()] == [3, 3, 3]
    assert written["results"]["miss_ms"] == sorted(written["results"]["runs_ms"]["miss"])[1]


def test_policies_serve_the_same_answers(engine, tmp_path):
    report = tmp_path / "report.json"
    options = ["--requests", 40, "--answer", 8, "--input", 20, "--max-tokens", 200, "--kv-tokens", 256, "--repeats", 1]
    result = run("scheduler_policies.py", "--engine", engine, *options, "--json", report)
    assert result.returncode == 0, result.stderr
    no_evict, utilization = json.loads(report.read_text())["results"]
    assert (no_evict["policy"], utilization["policy"]) == ("guaranteed_no_evict", "max_utilization")
    assert no_evict["mean_sequences"] < utilization["mean_sequences"]


def test_what_cannot_be_measured_is_one_line(engine):
    result = run("prefix_reuse.py", "--engine", engine, "--prefix", 300)
    assert result.returncode == 1
    assert "input_ids has 320 tokens" in result.stderr and "Traceback" not in result.stderr
