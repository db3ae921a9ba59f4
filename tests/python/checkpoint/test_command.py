"""inflight convert: exit status, messages, what is left behind, and how much memory it takes."""

import json
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

import inflight
from inflight.checkpoint.safetensors import SafetensorsWriter
from inflight.cli import main


def test_converts_and_says_what(tiny_directory, tmp_path, capsys):
    assert (
        main(["convert", str(tiny_directory("llama")), "--out", str(tmp_path / "deep" / "out"), "--dtype", "int8"]) == 0
    )
    printed = capsys.readouterr()
    assert "llama, 2 layers, hidden size 64, vocabulary 480, int8" in printed.out
    assert "convert: 100%" in printed.err
    names = sorted(path.name for path in (tmp_path / "deep" / "out").iterdir())
    assert names == ["config.json", "rank0.safetensors", "tokenizer"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere"], "nowhere does not exist: give a Hugging Face directory or a GGUF file"),
        (["SOURCE", "--dtype", "int4", "--group-size", "7"], "group size is 7; expected an even number"),
        (["SOURCE", "--dtype", "int4", "--group-size", "48"], "int4 groups of 48 do not divide"),
    ],
)
def test_bad_input_is_one_line_and_status_1(arguments, message, tiny_directory, tmp_path, capsys):
    arguments = [str(tiny_directory("llama")) if argument == "SOURCE" else argument for argument in arguments]
    assert main(["convert", *arguments, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("inflight convert: ") and message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_not_converted_again(tiny_directory, tmp_path, capsys):
    checkpoint = tmp_path / "checkpoint"
    assert main(["convert", str(tiny_directory("llama")), "--out", str(checkpoint)]) == 0
    assert main(["convert", str(checkpoint), "--out", str(tmp_path / "out")]) == 1
    assert (
        f"{checkpoint} is a checkpoint already: make an engine of it with `inflight build`" in capsys.readouterr().err
    )


def test_usage_errors_are_status_2(tmp_path):
    with pytest.raises(SystemExit) as exit:
        main(["convert", "x", "--out", str(tmp_path), "--dtype", "int3"])
    assert exit.value.code == 2


def test_replaces_a_checkpoint_but_nothing_else(tiny_directory, tmp_path, capsys):
    source, out = str(tiny_directory("llama")), tmp_path / "out"
    out.mkdir()
    assert main(["convert", source, "--out", str(out)]) == 0
    assert main(["convert", source, "--out", str(out), "--dtype", "int8"]) == 0
    assert json.loads((out / "config.json").read_text())["dtype"] == "int8"
    other = tmp_path / "precious"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    assert main(["convert", source, "--out", str(other)]) == 1
    assert "precious exists and is not an inflight-checkpoint directory" in capsys.readouterr().err
    assert main(["convert", source, "--out", source]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "precious"]


def test_a_failed_conversion_leaves_the_earlier_checkpoint(tiny_directory, tmp_path, monkeypatch):
    source, out = str(tiny_directory("llama")), tmp_path / "out"
    assert main(["convert", source, "--out", str(out)]) == 0

    def fail(*arguments):
        raise OSError(28, "No space left on device", str(out))

    monkeypatch.setattr(SafetensorsWriter, "write", fail)
    assert main(["convert", source, "--out", str(out), "--dtype", "int8"]) == 1
    assert json.loads((out / "config.json").read_text())["dtype"] == "float32"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# Converts, and says so when the weights are being written; then writes nothing more until it is told to end.
STUCK = """
import sys, time
from inflight.checkpoint.safetensors import SafetensorsWriter
from inflight.cli import main

def write(*arguments):
    print("writing", flush=True)
    time.sleep(1000)

SafetensorsWriter.reserve = write
sys.exit(main(["convert", sys.argv[1], "--out", sys.argv[2]]))
"""


@contextmanager
def stuck_conversion(source, out):
    command = [sys.executable, "-c", STUCK, source, out]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "writing\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_conversion_which_leaves_nothing(tiny_directory, tmp_path, number, status):
    with stuck_conversion(tiny_directory("llama"), tmp_path / "out") as process:
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert errors.endswith(f"inflight: stopped by {number.name}\n") and "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_the_next_conversion_removes_what_a_killed_one_left(tiny_directory, tmp_path):
    source, out = tiny_directory("llama"), tmp_path / "out"
    (tmp_path / ".out.original").mkdir()  # the user's own
    with stuck_conversion(source, out) as process, stuck_conversion(source, out):
        process.kill()
        process.wait()
        left = [path for path in tmp_path.iterdir() if path.name.startswith(".out.inflight-")]
        assert len(left) == 2
        assert main(["convert", str(source), "--out", str(out)]) == 0
        (running,) = [path for path in tmp_path.iterdir() if path.name.startswith(".out.inflight-")]
        assert running in left, "that of the conversion which goes on"
    assert main(["convert", str(source), "--out", str(out)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.original", "out"]


def test_each_command_names_the_next_one(tiny_directory, tmp_path, capsys):
    place = tmp_path / "my models"
    place.mkdir()
    command = ["inflight", "convert", str(tiny_directory("llama")), "--out", str(place / "checkpoint")]
    for name in ("build", "repo", "serve"):
        assert main(command[1:]) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith(f"next: inflight {name} ")
        command = shlex.split(last.removeprefix("next: "))
    assert sorted(path.name for path in place.iterdir()) == ["checkpoint", "engine", "repository"]


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0 and capsys.readouterr().out == f"inflight {inflight.__version__}\n"


MEASURE = """
import sys, tracemalloc
from inflight.checkpoint.convert import convert_checkpoint, open_source
import inflight.checkpoint.huggingface.source, transformers
open_source(__import__("pathlib").Path(sys.argv[1]))
tracemalloc.start()
for dtype in ("auto", "int4"):
    tracemalloc.reset_peak()
    convert_checkpoint(sys.argv[1], sys.argv[2], dtype=dtype, progress=False)
    print(tracemalloc.get_traced_memory()[1])
"""


def test_memory_stays_near_the_largest_tensor(tiny_directory, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    config = json.loads((tiny_directory("llama") / "config.json").read_text())
    sizes = dict(hidden_size=512, intermediate_size=4096, num_hidden_layers=7, num_key_value_heads=4, head_dim=128)
    (source / "config.json").write_text(json.dumps(config | sizes))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (source / name).write_bytes((tiny_directory("llama") / name).read_bytes())
    shapes = {"model.embed_tokens": (480, 512), "lm_head": (480, 512), "model.norm": (512,)}
    for layer in range(7):
        parts = {f"self_attn.{part}_proj": (512, 512) for part in "qkvo"}
        parts |= {f"mlp.{part}_proj": (4096, 512) for part in ("gate", "up")} | {"mlp.down_proj": (512, 4096)}
        parts |= {"input_layernorm": (512,), "post_attention_layernorm": (512,)}
        shapes |= {f"model.layers.{layer}.{part}": shape for part, shape in parts.items()}
    with SafetensorsWriter(source / "model.safetensors", [f"{name}.weight" for name in shapes]) as writer:
        for name, shape in shapes.items():
            writer.write(f"{name}.weight", "F32", np.full(shape, 0.5, np.float32))
    weights = (source / "model.safetensors").stat().st_size
    largest = 2 * 4096 * 512 * 4  # gate and up, fused
    command = [sys.executable, "-c", MEASURE, str(source), str(tmp_path / "out")]
    peaks = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert weights > 10 * largest
    assert max(map(int, peaks)) < 2 * largest
