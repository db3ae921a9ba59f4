"""Damaged GGUF files are refused, and never read as something else."""

import struct

import gguf_models
import numpy as np
import pytest
from checkpoint_weights import convert
from gguf import GGMLQuantizationType as GgmlType

from inflight.errors import InflightError


@pytest.fixture(scope="module")
def valid_file(model, tmp_path_factory):
    return gguf_models.write(tmp_path_factory.mktemp("gguf") / "model.gguf", model, GgmlType.Q8_0).read_bytes()


@pytest.mark.parametrize("kept", [0, 3, 20, 100, 2000, 0.3, 0.99])
def test_refuses_truncated_files(kept, valid_file, tmp_path):
    source = tmp_path / "model.gguf"
    source.write_bytes(valid_file[: kept if isinstance(kept, int) else int(kept * len(valid_file))])
    with pytest.raises(InflightError, match="model.gguf.*(truncated|too short)"):
        convert(source, tmp_path)


def test_refuses_foreign_and_damaged_files(valid_file, tmp_path):
    source = tmp_path / "model.gguf"
    for data, message in [
        (b"PK\x03\x04" + bytes(100), "is not a GGUF file"),
        (b"GGUF\x00\x00\x00\x03" + bytes(100), "GGUF version is 50331648"),
        (valid_file[:8] + b"\xff" * 16 + valid_file[24:], "truncated or damaged"),
    ]:
        source.write_bytes(data)
        with pytest.raises(InflightError, match=message):
            convert(source, tmp_path)


def test_refuses_tensors_that_overlap_or_are_shifted(valid_file, tmp_path):
    """As llama.cpp does: each begins where the one before it ends."""
    source = tmp_path / "model.gguf"
    name = b"blk.0.attn_k.weight"
    place = valid_file.index(name) + len(name) + 4 + 2 * 8 + 4
    offset = int.from_bytes(valid_file[place : place + 8], "little")
    for wrong in (0, offset - 32, offset + 1, offset + 32):
        source.write_bytes(valid_file[:place] + wrong.to_bytes(8, "little") + valid_file[place + 8 :])
        message = rf"tensor blk.0.attn_k.weight begins at byte {wrong} of the data; expected {offset}"
        with pytest.raises(InflightError, match=message):
            convert(source, tmp_path)


def test_refuses_names_that_are_there_twice(valid_file, tmp_path):
    source = tmp_path / "model.gguf"
    for old, new, what in [
        (b"blk.0.attn_k.weight", b"blk.0.attn_q.weight", "tensor blk.0.attn_q.weight"),
        (b"llama.context_length", b"general.architecture", "metadata key general.architecture"),
    ]:
        assert len(old) == len(new)
        source.write_bytes(valid_file.replace(old, new, 1))
        with pytest.raises(InflightError, match=f"{what} is there twice"):
            convert(source, tmp_path)


def test_refuses_deeply_nested_arrays(tmp_path):
    source = tmp_path / "model.gguf"
    array_of_one_array = struct.pack("<IQ", 9, 1)
    metadata = struct.pack("<Q1sI", 1, b"x", 9) + array_of_one_array * 100_000
    source.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + metadata)
    with pytest.raises(InflightError, match="model.gguf: metadata nests arrays deeper than 8"):
        convert(source, tmp_path)


@pytest.mark.parametrize("seed", range(20))
def test_no_damage_to_the_header_ends_in_anything_but_an_error(seed, valid_file, tmp_path):
    generator = np.random.default_rng(seed)
    data = bytearray(valid_file)
    for position in generator.integers(4, 3000, 5):
        data[position] = generator.integers(0, 256)
    source = tmp_path / "model.gguf"
    source.write_bytes(data)
    try:
        convert(source, tmp_path)
    except InflightError as error:
        assert "model.gguf" in str(error)
