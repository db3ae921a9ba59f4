"""Safetensors files, mapped for reading and streamed for writing.

Format: https://github.com/huggingface/safetensors#format. An 8-byte little-endian header length, a JSON
header, then the tensors' bytes without holes. Opening validates the header against the file's size, so a
truncated or foreign file is an InflightError, never a fault later. bfloat16, which NumPy lacks, is viewed
as uint16.

What is written here has each tensor's checksum in the header's __metadata__: {"a.weight": "crc32:1c291ca3"}.
"""

import json
import math
import mmap
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inflight.errors import InflightError, cause

NUMPY_TYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E5M2": np.dtype("u1"),
}
MAX_HEADER_BYTES = 100_000_000  # the limit of the reference implementation
ALIGNMENT = 64  # of the data section: a cache line, so that mapped tensors can be used in place

_CHECKSUM = "crc32:"
_NOT_OURS = "it was written by another tool or an earlier version; make it anew with `inflight convert` or `build`"


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's place in its file: `start` and `stop` are byte offsets from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class SafetensorsReader:
    """A memory-mapped safetensors file.

    Args:
        path: the file.
    Raises:
        InflightError: the file is missing, truncated or not a safetensors file.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                size = file.seek(0, 2)
                if size < 8:
                    raise InflightError(f"{self.path} is {size} bytes long: too short for a safetensors file")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise InflightError(f"cannot read {self.path}: {error.strerror}") from error
        self.checksums: dict[str, int] = {}
        self.tensors = self._parse_header(size)
        self._check_coverage(size)

    def names(self) -> list[str]:
        return list(self.tensors)

    def info(self, name: str) -> TensorInfo:
        """Dtype, shape and place of a tensor. Raises InflightError when the file does not hold it."""
        if name not in self.tensors:
            raise InflightError(f"{self.path} has no tensor {name}")
        return self.tensors[name]

    def tensor(self, name: str) -> np.ndarray:
        """A read-only view of a tensor, paged in as it is used; BF16 comes as uint16."""
        info = self.info(name)
        dtype = NUMPY_TYPES[info.dtype]
        return np.frombuffer(self._map, dtype, math.prod(info.shape), info.start).reshape(info.shape)

    def verify(self, name: str) -> None:
        """Raises InflightError unless the tensor's bytes are those that were written; reads all of them."""
        info, expected = self.info(name), self.checksums.get(name)
        if expected is None:
            raise InflightError(f"{self.path} has no checksum of tensor {name}: {_NOT_OURS}")
        found = zlib.crc32(memoryview(self._map)[info.start : info.stop])
        if found != expected:
            raise InflightError(
                f"{self.path} is damaged: tensor {name} has the checksum {found:08x}, and had {expected:08x} when it "
                "was written; copy the file again, or make it anew"
            )

    def expect_names(self, expected: Iterable[str]) -> None:
        """Raises InflightError unless the file holds exactly these tensors, and those that were written into it."""
        expected = set(expected)
        for name in sorted(expected - self.tensors.keys()):
            raise InflightError(f"{self.path} has no tensor {name}")
        for name in sorted(self.tensors.keys() - expected):
            raise InflightError(f"{self.path} holds tensor {name}, which its config.json does not call for")
        for name in sorted(self.checksums.keys() ^ self.tensors.keys()):
            found = f"{self.path} has no {'checksum of ' if name in self.tensors else ''}tensor {name}"
            raise InflightError(f"{found}: {_NOT_OURS}")

    def _parse_header(self, size: int) -> dict[str, TensorInfo]:
        length = int.from_bytes(self._map[:8], "little")
        if length > min(size - 8, MAX_HEADER_BYTES):
            raise InflightError(
                f"{self.path} is not a safetensors file or is truncated: its header would be {length} bytes long, "
                f"the file has {size}"
            )
        try:
            header = json.loads(self._map[8 : 8 + length], object_pairs_hook=_without_repetitions)
        except (ValueError, RecursionError) as error:
            raise InflightError(
                f"{self.path} is not a safetensors file: its header is not JSON ({cause(error)})"
            ) from error
        if not isinstance(header, dict):
            raise InflightError(f"{self.path} is not a safetensors file: its header is not a JSON object")
        self._parse_metadata(header.pop("__metadata__", {}))
        return {name: self._parse_entry(name, entry, 8 + length, size) for name, entry in header.items()}

    def _parse_metadata(self, metadata: object) -> None:
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise InflightError(f"{self.path}: __metadata__ of its header is not an object of strings")
        for name, value in metadata.items():
            if value.startswith(_CHECKSUM):
                try:
                    self.checksums[name] = int(value.removeprefix(_CHECKSUM), 16)
                except ValueError as error:
                    raise InflightError(f"{self.path}: the checksum of tensor {name} is {value!r}") from error

    def _check_coverage(self, size: int) -> None:
        """The tensors cover the data from end to end, without gaps or overlaps, as the format asks."""
        covered = 8 + int.from_bytes(self._map[:8], "little")
        for start, stop, name in sorted((info.start, info.stop, name) for name, info in self.tensors.items()):
            if start != covered:
                raise InflightError(
                    f"{self.path} is damaged: tensor {name} begins at byte {start}; the tensors before it end at "
                    f"byte {covered}"
                )
            covered = stop
        if covered != size:
            raise InflightError(f"{self.path} is damaged: its tensors end at byte {covered}, the file has {size}")

    def _parse_entry(self, name: str, entry: dict, data_start: int, size: int) -> TensorInfo:
        try:
            dtype, shape = entry["dtype"], tuple(entry["shape"])
            begin, end = entry["data_offsets"]
            sizes = (*shape, begin, end)
            well_formed = isinstance(dtype, str) and all(type(size) is int and 0 <= size < 2**63 for size in sizes)
        except (TypeError, KeyError, ValueError):
            well_formed = False
        if not well_formed:
            raise InflightError(f"{self.path}: malformed header entry of tensor {name}: {cause(str(entry))}")
        if dtype not in NUMPY_TYPES:
            raise InflightError(f"{self.path}: tensor {name} has dtype {dtype}; supported are {', '.join(NUMPY_TYPES)}")
        expected = math.prod(shape) * NUMPY_TYPES[dtype].itemsize
        if end - begin != expected:
            raise InflightError(
                f"{self.path}: tensor {name} of dtype {dtype} and shape {list(shape)} needs {expected} bytes, "
                f"its data_offsets give {end - begin}"
            )
        if data_start + end > size:
            raise InflightError(
                f"{self.path} is truncated: tensor {name} ends at byte {data_start + end}, the file has {size}"
            )
        return TensorInfo(dtype, shape, data_start + begin, data_start + end)


class TensorRegion:
    """The place of one tensor in a file that is being written; takes its rows in order, in any portions."""

    def __init__(self, name: str, file, info: TensorInfo):
        self.name = name
        self.info = info
        self._file = file
        self._position = info.start
        self.checksum = 0

    def write(self, values: np.ndarray | bytes) -> None:
        """Appends the next rows: C order, the tensor's dtype (BF16 as uint16)."""
        data = values if isinstance(values, bytes) else np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        if self._position + len(data) > self.info.stop:
            raise ValueError(f"{self.name}: more than {self.info.stop - self.info.start} bytes written")
        self._file.seek(self._position)
        self._file.write(data)
        self._position += len(data)
        self.checksum = zlib.crc32(data, self.checksum)

    def is_complete(self) -> bool:
        return self._position == self.info.stop


class SafetensorsWriter:
    """Streams tensors into a safetensors file; nothing but the rows in flight is kept in memory.

    Room for the header is set aside from the names, which must be known beforehand; sizes need not be.
    Use as a context manager; leaving it writes the header and checks that every tensor is complete.

    Args:
        path: the file to write.
        names: the names of all tensors that will be written.
    """

    def __init__(self, path: Path | str, names: Iterable[str]):
        self._names = set(names)
        longest_entry = len('"":{"dtype":"F8_E4M3","shape":[,],"data_offsets":[,]},') + 4 * len(str(2**63))
        checksum = len(f'"":"{_CHECKSUM}12345678",')
        names = sum(2 * len(json.dumps(name)) + longest_entry + checksum for name in self._names)
        capacity = 8 + len('{"__metadata__":{}}') + names
        self._data_start = -(-capacity // ALIGNMENT) * ALIGNMENT
        self._stop = self._data_start
        self._regions: dict[str, TensorRegion] = {}
        self._file = open(path, "wb")

    def __enter__(self) -> "SafetensorsWriter":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        with self._file:
            if exception_type is None:
                self._write_header()

    def reserve(self, name: str, dtype: str, shape: Iterable[int]) -> TensorRegion:
        """Takes the next place in the file for a tensor of at most two dimensions."""
        if name not in self._names or name in self._regions:
            raise ValueError(f"tensor {name} was not announced or is already there")
        shape = tuple(int(extent) for extent in shape)
        start, self._stop = self._stop, self._stop + math.prod(shape) * NUMPY_TYPES[dtype].itemsize
        self._regions[name] = TensorRegion(name, self._file, TensorInfo(dtype, shape, start, self._stop))
        return self._regions[name]

    def write(self, name: str, dtype: str, values: np.ndarray | bytes) -> None:
        """Writes a whole tensor; bytes are a one-dimensional U8 tensor."""
        shape = (len(values),) if isinstance(values, bytes) else values.shape
        self.reserve(name, dtype, shape).write(values)

    def _write_header(self) -> None:
        unfinished = sorted(
            name for name in self._names if name not in self._regions or not self._regions[name].is_complete()
        )
        if unfinished:
            raise ValueError(f"tensors not written completely: {', '.join(unfinished)}")
        header: dict[str, object] = {
            "__metadata__": {name: f"{_CHECKSUM}{region.checksum:08x}" for name, region in self._regions.items()}
        }
        header |= {
            name: {
                "dtype": region.info.dtype,
                "shape": region.info.shape,
                "data_offsets": [region.info.start - self._data_start, region.info.stop - self._data_start],
            }
            for name, region in self._regions.items()
        }
        text = json.dumps(header, separators=(",", ":")).encode()
        self._file.seek(0)
        self._file.write((self._data_start - 8).to_bytes(8, "little"))
        self._file.write(text.ljust(self._data_start - 8))


def _without_repetitions(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return values
