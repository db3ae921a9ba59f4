"""inflight build: what it writes, prints and refuses."""

import argparse
import json
import os
import subprocess
import sys

import pytest
from safetensors.numpy import load_file, save_file

from inflight.checkpoint import canonical
from inflight.checkpoint.convert import convert_checkpoint
from inflight.checkpoint.reader import CheckpointReader
from inflight.checkpoint.safetensors import SafetensorsReader
from inflight.cli import main
from inflight.engine.build import build_engine, plan_engine
from inflight.engine.command import parse_bytes
from inflight.engine.config import BuildOptions, EngineConfig
from inflight.errors import InflightError

SMALL = dict(max_batch_size=4, max_num_tokens=64, max_seq_len=128, tokens_per_block=16, kv_cache_memory=1 << 20)


def test_engine_holds_the_checkpoint_s_tensors_packed_and_aligned(checkpoint, tmp_path):
    config = build_engine(checkpoint, tmp_path / "engine", BuildOptions(**SMALL), progress=False)
    assert EngineConfig.load(tmp_path / "engine") == config
    reader = SafetensorsReader(tmp_path / "engine" / "rank0.safetensors")
    matrices = {f"{name}.weight" for name in canonical.matrix_shapes(config.pretrained_config)}
    assert set(reader.names()) == matrices | canonical.vector_sizes(config.pretrained_config).keys()
    for name in matrices:
        info = reader.info(name)
        assert info.dtype == "U8" and info.start % 64 == 0 and bytes(reader.tensor(name)[:8]) == b"INFLMATX"
    copied = {path.name for path in (tmp_path / "engine" / "tokenizer").iterdir()}
    assert copied == {path.name for path in (checkpoint / "tokenizer").iterdir()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8", "int4"])
@pytest.mark.parametrize("where", ["convert", "build"])
def test_plan_foretells_the_weights_to_the_byte(dtype, where, tiny_directory, checkpoint, tmp_path):
    options = BuildOptions(**SMALL, dtype=dtype if where == "build" else "auto")
    if where == "convert":
        checkpoint = tmp_path / "checkpoint"
        convert_checkpoint(tiny_directory("llama"), checkpoint, dtype=dtype, progress=False)
    reader = CheckpointReader(checkpoint)
    plan = plan_engine(reader, options)
    config = build_engine(checkpoint, tmp_path / "engine", options, progress=False)
    written = SafetensorsReader(tmp_path / "engine" / "rank0.safetensors")
    assert plan.weights == sum(info.stop - info.start for info in written.tensors.values())
    assert config.pretrained_config.dtype == dtype


def test_converting_at_build_time_gives_the_same_engine(tiny_directory, checkpoint, tmp_path):
    convert_checkpoint(tiny_directory("llama"), tmp_path / "int4", dtype="int4", progress=False)
    build_engine(tmp_path / "int4", tmp_path / "a", BuildOptions(**SMALL), progress=False)
    build_engine(checkpoint, tmp_path / "b", BuildOptions(**SMALL, dtype="int4"), progress=False)
    first, second = (load_file(tmp_path / name / "rank0.safetensors") for name in "ab")
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)


def test_smollm2_keeps_float16_scales(smollm2_gguf, tmp_path):
    convert_checkpoint(smollm2_gguf, tmp_path / "checkpoint", progress=False)
    reader = CheckpointReader(tmp_path / "checkpoint")
    options = BuildOptions(**SMALL | dict(kv_cache_memory=64 << 20))
    plan = plan_engine(reader, options)
    build_engine(tmp_path / "checkpoint", tmp_path / "engine", options, progress=False)
    written = SafetensorsReader(tmp_path / "engine" / "rank0.safetensors")
    assert plan.weights == sum(info.stop - info.start for info in written.tensors.values())


VIRTUAL_SIZE = """
import re, sys
from inflight._native import Engine
engine = Engine(sys.argv[1])
print(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read()).group(1))
"""


def test_plan_foretells_the_activations(checkpoint, tmp_path):
    """Two engines that differ in max_num_tokens alone: their processes differ in size as their plans do."""
    reader = CheckpointReader(checkpoint)
    exact = os.environ | {"MALLOC_TOP_PAD_": "0"}  # else glibc's heap grows in steps of twice the tolerance
    planned, measured = [], []
    for max_num_tokens in (64, 64 + 200_000):
        options = BuildOptions(**SMALL | dict(max_num_tokens=max_num_tokens))
        planned.append(plan_engine(reader, options).activations)
        build_engine(checkpoint, tmp_path / "engine", options, progress=False)
        command = [sys.executable, "-c", VIRTUAL_SIZE, str(tmp_path / "engine")]
        run = subprocess.run(command, check=True, capture_output=True, text=True, env=exact)
        measured.append(int(run.stdout) * 1024)
    assert measured[1] - measured[0] == pytest.approx(planned[1] - planned[0], rel=0.001)


def test_command_prints_the_plan_first(checkpoint, tmp_path, capsys):
    arguments = ["--max-batch-size", "4", "--max-num-tokens", "64", "--max-seq-len", "128", "--kv-cache-memory", "1MiB"]
    assert main(["build", str(checkpoint), "--out", str(tmp_path / "engine"), *arguments]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == "memory plan" and lines[-2].endswith("llama engine for cpu")
    assert "512 bytes a token; 64 blocks of 32 tokens hold 16 sequences of 128 tokens" in printed.out
    assert "build: 100%" in printed.err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--kv-cache-memory", "4KiB", "--max-seq-len", "128"], "pass --kv-cache-memory 1MiB or more"),
        (["--max-seq-len", "257"], "this model's positions end at 256: pass --max-seq-len 256 or less"),
        (["--tokens-per-block", "3"], "--tokens-per-block is 3; expected a power of two"),
        (
            ["--max-batch-size", "9", "--max-num-tokens", "8"],
            "--max-num-tokens is 8; expected at least --max-batch-size",
        ),
    ],
)
def test_refusals_come_before_any_work(arguments, message, checkpoint, tmp_path, capsys):
    assert main(["build", str(checkpoint), "--out", str(tmp_path / "engine"), *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("inflight build: ") and message in printed.err and printed.err.count("\n") == 1
    assert printed.out == "" and list(tmp_path.iterdir()) == []


def test_replaces_an_engine_but_not_a_checkpoint(checkpoint_copy, tmp_path, capsys):
    for _ in range(2):
        build_engine(checkpoint_copy, tmp_path / "engine", BuildOptions(**SMALL), progress=False)
    assert main(["build", str(checkpoint_copy), "--out", str(checkpoint_copy)]) == 1
    assert "exists and is not an inflight-engine directory" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "engine"]


def edit_config(checkpoint, **changes):
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def replace_tensor(checkpoint, name, change):
    path = checkpoint / "rank0.safetensors"
    tensors = load_file(path)
    changed = change(tensors.pop(name))
    save_file(tensors if changed is None else tensors | {name: changed}, path)


def flip_bit(path, name):
    content = bytearray(path.read_bytes())
    content[SafetensorsReader(path).info(name).start + 5] ^= 0x10
    path.write_bytes(content)


def truncate(checkpoint):
    path = checkpoint / "rank0.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def swap_tokenizer(checkpoint):
    path = checkpoint / "tokenizer" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["beyond"] = 5000
    path.write_text(json.dumps(tokenizer))


QKV = "transformer.layers.1.attention.qkv.weight"


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda c: (c / "config.json").unlink(), "is not a checkpoint: it has no config.json"),
        (lambda c: (c / "rank0.safetensors").unlink(), "cannot read"),
        (lambda c: (c / "tokenizer" / "tokenizer.json").unlink(), "tokenizer.json does not exist"),
        (lambda c: (c / "tokenizer" / "tokenizer.json").write_text("{"), "tokenizer.json is not a tokenizer"),
        (swap_tokenizer, "token ids go up to 5000, the model's vocabulary has 480"),
        (truncate, "is truncated"),
        (lambda c: edit_config(c, vocab_size=481), "vocab_embedding.weight is F32 [480, 64]"),
        (lambda c: edit_config(c, num_hidden_layers=3, layer_windows=[0, 0, 0]), "has no tensor transformer.layers.2"),
        (lambda c: edit_config(c, qkv_bias=True), "has no tensor transformer.layers.0.attention.qkv.bias"),
        (lambda c: replace_tensor(c, QKV, lambda w: w[:, :32].copy()), f"{QKV} is F32 [128, 32]"),
        (lambda c: replace_tensor(c, QKV, lambda w: w.astype("float64")), f"{QKV} is F64 [128, 64]"),
        (
            lambda c: replace_tensor(c, QKV, lambda w: w.astype("int8")),
            "has no tensor transformer.layers.1.attention.qkv.scale",
        ),
        (lambda c: flip_bit(c / "rank0.safetensors", QKV), f"rank0.safetensors is damaged: tensor {QKV}"),
        (lambda c: edit_config(c, norm_epsilon=2), "norm_epsilon is 2; expected a number above 0 and below 1"),
        (lambda c: edit_config(c, tie_word_embeddings=True), "holds tensor lm_head.weight"),
        (lambda c: edit_config(c, num_hidden_layers=2**40), "num_hidden_layers is 1099511627776; expected an integer"),
        (lambda c: replace_tensor(c, "transformer.ln_f.weight", lambda w: w.astype("float16")), "asks for F32 [64]"),
    ],
)
def test_refuses_damaged_checkpoints_by_name(damage, message, checkpoint_copy, tmp_path):
    damage(checkpoint_copy)
    with pytest.raises(InflightError) as error:
        build_engine(checkpoint_copy, tmp_path / "engine", BuildOptions(**SMALL), progress=False)
    assert message in str(error.value) and str(checkpoint_copy) in str(error.value)
    assert not (tmp_path / "engine").exists()


@pytest.mark.parametrize(
    "text, size",
    [("1000", 1000), ("2GiB", 2 << 30), ("512M", 512 << 20), ("1.5 gb", 1_500_000_000), ("64KiB", 65536), ("7B", 7)],
)
def test_sizes_are_parsed(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-1", "1e9", "5 PiB"])
def test_sizes_that_are_none(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a size"):
        parse_bytes(text)
