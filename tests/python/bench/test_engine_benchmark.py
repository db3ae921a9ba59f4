import json
import subprocess
import sys

import pytest


def run(*arguments):
    command = [sys.executable, "-m", "inflight.bench", "engine", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def engine(tiny_engine):
    return tiny_engine("llama", max_batch_size=8, max_num_tokens=64)


def test_every_batch_size_gets_its_figures_and_the_json_all_that_they_depend_on(smollm2_engine, tmp_path):
    # Not a tiny model: it would have finished the first request before a busy machine submits the third.
    engine = smollm2_engine(max_batch_size=8)
    report = tmp_path / "reports" / "engine.json"
    result = run("--engine", engine, "--batch", "1,3", "--input", 8, "--output", 24, "--repeats", 3, "--json", report)
    assert result.returncode == 0, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["batch", "1", "3"]
    written = json.loads(report.read_text())
    assert written["options"]["input"] == 8 and written["machine"]["cores"] >= 1
    assert written["engine"]["build_config"]["max_batch_size"] == 8
    for result in written["results"]:
        for name, values in result["runs"].items():
            assert len(values) == 3
            assert result[name] == sorted(values)[1] > 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--batch", "9"], "--batch 9 exceeds the engine's max_batch_size, 8"),
        (["--batch", "one"], "--batch is 'one'"),
        (["--batch", "1", "--input", "300"], "input_ids has 300 tokens"),
        (["--output", "1"], "--output must be at least 2"),
    ],
)
def test_what_cannot_be_measured_is_one_line(engine, arguments, message):
    result = run("--engine", engine, *arguments)
    assert result.returncode == 1
    assert message in result.stderr and "Traceback" not in result.stderr
