"""inflight check: damage that no shape tells is found by the checksums."""

import json
import shutil

import pytest
from safetensors.numpy import load_file

from inflight.checkpoint.convert import convert_checkpoint
from inflight.checkpoint.safetensors import SafetensorsReader, SafetensorsWriter
from inflight.cli import main
from inflight.engine.build import build_engine
from inflight.engine.config import BuildOptions


@pytest.fixture(scope="module")
def originals(tiny_directory, tmp_path_factory):
    """An int4 checkpoint and its engine."""
    root = tmp_path_factory.mktemp("originals")
    convert_checkpoint(tiny_directory("llama"), root / "checkpoint", dtype="int4", progress=False)
    build_engine(root / "checkpoint", root / "engine", BuildOptions(max_seq_len=64), progress=False)
    return root


@pytest.fixture(params=["checkpoint", "engine"])
def directory(originals, request, tmp_path):
    """One to damage."""
    return shutil.copytree(originals / request.param, tmp_path / request.param)


def check(directory, capsys) -> str:
    """What `inflight check` says of a damaged directory."""
    assert main(["check", str(directory)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("inflight check: ") and str(directory) in error and error.count("\n") == 1
    return error


def test_undamaged_directories_pass(directory, capsys):
    assert main(["check", str(directory)]) == 0
    assert capsys.readouterr().out == f"{directory}: every file is as it was written\n"


def test_a_flipped_bit_of_any_tensor_is_found(directory, capsys):
    path = directory / "rank0.safetensors"
    whole = path.read_bytes()
    for name, info in SafetensorsReader(path).tensors.items():
        content = bytearray(whole)
        content[(info.start + info.stop) // 2] ^= 1
        path.write_bytes(content)
        assert f"is damaged: tensor {name} has the checksum" in check(directory, capsys)


def rewrite(path, tensors):
    codes = {"float32": "F32", "uint8": "U8", "int8": "I8"}
    with SafetensorsWriter(path, tensors) as writer:
        for name, values in tensors.items():
            writer.write(name, codes[values.dtype.name], values)


def test_a_dropped_or_added_tensor_is_found(directory, capsys):
    """An int4 matrix without its minimums is a valid one, of other values."""
    path = directory / "rank0.safetensors"
    tensors, header_bytes = load_file(path), int.from_bytes(path.read_bytes()[:8], "little")
    written = json.loads(path.read_bytes()[8 : 8 + header_bytes])["__metadata__"]
    name = "transformer.layers.1.mlp.down." + ("minimum" if directory.name == "checkpoint" else "weight")
    dropped = tensors.pop(name)
    rewrite(path, tensors)
    content = path.read_bytes()
    entry = f'"{name}":"{written[name]}",'.encode()
    forged = content.replace(b'"__metadata__":{', b'"__metadata__":{' + entry)
    path.write_bytes(forged.replace(b" " * len(entry), b"", 1))  # in the padding of the header
    assert f"has no tensor {name}" in check(directory, capsys)
    rewrite(path, tensors | {name: dropped, "transformer.other": dropped})
    assert "holds tensor transformer.other, which its config.json does not call for" in check(directory, capsys)


@pytest.mark.parametrize("file", ["config.json", "tokenizer/tokenizer.json", "rank0.safetensors"])
def test_every_missing_and_every_empty_file_is_named(file, directory, capsys):
    (directory / file).write_bytes(b"")
    assert file in check(directory, capsys)
    (directory / file).unlink()
    assert file.rpartition("/")[2] in check(directory, capsys)
