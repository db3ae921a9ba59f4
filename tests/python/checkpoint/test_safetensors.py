"""Safetensors files: what we write the reference library reads, and the other way round; damage is refused."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from inflight.checkpoint.safetensors import ALIGNMENT, SafetensorsReader, SafetensorsWriter
from inflight.errors import InflightError

TENSORS = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "long.name.weight": np.arange(-4, 4, dtype=np.int8).reshape(2, 4),
    "half": np.arange(5, dtype=np.float16),
    "ünïcödé": np.zeros((0, 3), np.uint8),
}
CODES = {"float32": "F32", "int8": "I8", "float16": "F16", "uint8": "U8"}


def write(path, tensors=TENSORS):
    with SafetensorsWriter(path, tensors) as writer:
        for name, values in tensors.items():
            writer.write(name, CODES[values.dtype.name], values)


def test_reference_library_reads_what_we_write(tmp_path):
    write(tmp_path / "x.safetensors")
    loaded = load_file(tmp_path / "x.safetensors")
    assert loaded.keys() == TENSORS.keys()
    assert all(np.array_equal(loaded[name], values) for name, values in TENSORS.items())


def test_we_read_what_the_reference_library_writes(tmp_path):
    save_file(TENSORS, tmp_path / "x.safetensors", metadata={"format": "np"})
    reader = SafetensorsReader(tmp_path / "x.safetensors")
    assert set(reader.names()) == set(TENSORS)
    assert all(np.array_equal(reader.tensor(name), values) for name, values in TENSORS.items())


def test_data_begins_at_a_cache_line(tmp_path):
    write(tmp_path / "x.safetensors")
    reader = SafetensorsReader(tmp_path / "x.safetensors")
    assert reader.info("a").start % ALIGNMENT == 0


def test_rows_come_in_portions_and_tensors_side_by_side(tmp_path):
    with SafetensorsWriter(tmp_path / "x.safetensors", ["weight", "scale"]) as writer:
        weight = writer.reserve("weight", "I8", (4, 2))
        scale = writer.reserve("scale", "F32", (4, 1))
        for start in (0, 1, 3):
            stop = min(4, start + 2 if start else 1)
            weight.write(np.full((stop - start, 2), start, np.int8))
            scale.write(np.full((stop - start, 1), start, np.float32))
    loaded = load_file(tmp_path / "x.safetensors")
    assert loaded["weight"].tolist() == [[0, 0], [1, 1], [1, 1], [3, 3]]
    assert loaded["scale"].tolist() == [[0], [1], [1], [3]]


def test_unfinished_files_are_not_passed_off_as_finished(tmp_path):
    with pytest.raises(ValueError, match="not written completely: b"):
        with SafetensorsWriter(tmp_path / "x.safetensors", ["a", "b"]) as writer:
            writer.write("a", "F32", np.zeros(1, np.float32))
            writer.reserve("b", "F32", (2,)).write(np.zeros(1, np.float32))
    with pytest.raises(ValueError, match="more than 4 bytes"):
        with SafetensorsWriter(tmp_path / "x.safetensors", ["a"]) as writer:
            writer.reserve("a", "F32", (1,)).write(np.zeros(2, np.float32))


def file_of(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "0 bytes long: too short"),
        (b"GGUF\x03\x00\x00\x00" + bytes(50), "not a safetensors file or is truncated"),
        (file_of(b"{not json"), "its header is not JSON"),
        (file_of(b"\xff\xfe{}"), "its header is not JSON"),
        (file_of([1]), "its header is not a JSON object"),
        (file_of({"w": ENTRY}, bytes(7)), "is truncated: tensor w ends at byte"),
        (file_of({"w": {**ENTRY, "dtype": "F4"}}, bytes(8)), "tensor w has dtype F4; supported are F64, F32"),
        (file_of({"w": {**ENTRY, "shape": [3]}}, bytes(8)), "shape [3] needs 12 bytes, its data_offsets give 8"),
        (file_of({"w": {**ENTRY, "shape": [-2]}}, bytes(8)), "malformed header entry of tensor w"),
        (file_of({"w": {**ENTRY, "data_offsets": [8, 0]}}, bytes(8)), "needs 8 bytes, its data_offsets give -8"),
        (file_of({"w": {**ENTRY, "dtype": ["F32"]}}, bytes(8)), "malformed header entry of tensor w"),
        (file_of(b"[" * 100_000), "its header is not JSON"),
        (file_of({"w": 3}, bytes(8)), "malformed header entry of tensor w"),
        (file_of({"w": ENTRY}, bytes(9)), "its tensors end at byte"),
        (file_of({"w": {**ENTRY, "data_offsets": [1, 9]}}, bytes(9)), "tensor w begins at byte"),
        (file_of({"w": ENTRY, "v": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12)), "tensor v begins at byte"),
        (file_of(b'{"w":%b,"w":%b}' % ((json.dumps(ENTRY).encode(),) * 2), bytes(8)), "'w' is there twice"),
        (file_of({"w": {**ENTRY, "shape": [2, True]}}, bytes(8)), "malformed header entry of tensor w"),
        (file_of({"__metadata__": {"a": 1}}), "__metadata__ of its header is not an object of strings"),
        (file_of({"__metadata__": {"a": "crc32:x"}}), "the checksum of tensor a is 'crc32:x'"),
        (file_of({"w": {"dtype": "F32"}}, bytes(8)), "malformed header entry of tensor w"),
    ],
)
def test_refuses_what_is_no_safetensors_file(data, message, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(InflightError) as error:
        SafetensorsReader(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_a_flipped_bit_is_found(tmp_path):
    write(tmp_path / "x.safetensors")
    content = bytearray((tmp_path / "x.safetensors").read_bytes())
    reader = SafetensorsReader(tmp_path / "x.safetensors")
    reader.expect_names(TENSORS)
    for name in TENSORS:
        reader.verify(name)
    content[reader.info("half").start] ^= 1
    (tmp_path / "x.safetensors").write_bytes(content)
    damaged = SafetensorsReader(tmp_path / "x.safetensors")
    damaged.verify("a")
    with pytest.raises(InflightError, match="x.safetensors is damaged: tensor half has the checksum"):
        damaged.verify("half")


def test_names_are_those_that_were_written(tmp_path):
    write(tmp_path / "x.safetensors")
    reader = SafetensorsReader(tmp_path / "x.safetensors")
    with pytest.raises(InflightError, match="has no tensor b"):
        reader.expect_names([*TENSORS, "b"])
    with pytest.raises(InflightError, match="holds tensor half, which its config.json does not call for"):
        reader.expect_names(TENSORS.keys() - {"half"})
    save_file(TENSORS, tmp_path / "x.safetensors")
    with pytest.raises(InflightError, match="has no checksum of tensor a: it was written by another tool"):
        SafetensorsReader(tmp_path / "x.safetensors").expect_names(TENSORS)


def test_names_missing_files_and_tensors(tmp_path):
    with pytest.raises(InflightError, match="cannot read .*missing.safetensors: No such file"):
        SafetensorsReader(tmp_path / "missing.safetensors")
    write(tmp_path / "x.safetensors")
    with pytest.raises(InflightError, match="x.safetensors has no tensor b"):
        SafetensorsReader(tmp_path / "x.safetensors").tensor("b")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_to_the_header_ends_in_anything_but_an_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "x.safetensors"
    save_file(TENSORS, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        reader = SafetensorsReader(path)
        [reader.tensor(name).sum() for name in reader.names()]
    except InflightError as error:
        assert str(path) in str(error)
