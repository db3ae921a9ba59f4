"""A checkpoint directory, opened and checked against its own config.json."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inflight.checkpoint import canonical
from inflight.checkpoint.config import ModelConfig
from inflight.checkpoint.matrix import SAFETENSORS_DTYPES, Matrix, MatrixType
from inflight.checkpoint.safetensors import SafetensorsReader
from inflight.errors import InflightError

_DTYPES = {code: dtype for dtype, code in SAFETENSORS_DTYPES.items()}


@dataclass(frozen=True)
class StoredMatrix:
    """A matrix of the checkpoint: its name less ".weight", shape [out, in] and type."""

    name: str
    rows: int
    columns: int
    type: MatrixType

    def tensor_names(self) -> list[str]:
        """Its tensors in the file."""
        suffixes = ["weight"] + ["scale"] * self.type.is_quantized + ["minimum"] * self.type.has_minimum
        return [f"{self.name}.{suffix}" for suffix in suffixes]


class CheckpointReader:
    """What `inflight convert` wrote; weights are mapped, not read.

    Raises InflightError naming the file, the tensor, what was expected and what was found, for a directory
    that is no checkpoint, or is damaged.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.config = ModelConfig.load(directory)
        self._file = SafetensorsReader(directory / "rank0.safetensors")
        self.matrices = [
            self._describe(name, rows, columns)
            for name, (rows, columns) in canonical.matrix_shapes(self.config).items()
        ]
        vectors = canonical.vector_sizes(self.config)
        for name, size in vectors.items():
            self._expect(name, ("F32",), (size,))
        self._file.expect_names([*(name for stored in self.matrices for name in stored.tensor_names()), *vectors])

    def verify(self) -> None:
        """Raises InflightError naming the first tensor whose bytes are not those that were written."""
        for name in self._file.names():
            self._file.verify(name)

    def verify_matrix(self, stored: StoredMatrix) -> None:
        """The same for one matrix."""
        for name in stored.tensor_names():
            self._file.verify(name)

    def matrix(self, stored: StoredMatrix, start: int = 0, stop: int | None = None) -> Matrix:
        """Rows of a matrix, as views of the mapped file."""

        def rows(suffix: str) -> np.ndarray:
            return self._file.tensor(f"{stored.name}.{suffix}")[start:stop]

        return Matrix(
            stored.type,
            rows("weight"),
            rows("scale") if stored.type.is_quantized else None,
            rows("minimum") if stored.type.has_minimum else None,
        )

    def vector(self, name: str) -> np.ndarray:
        """A norm weight or bias: float32 [size]. Raises InflightError where it is not what was written."""
        self._file.verify(name)
        return self._file.tensor(name)

    def _describe(self, name: str, rows: int, columns: int) -> StoredMatrix:
        weight = self._file.info(f"{name}.weight")
        dtype = _DTYPES.get(weight.dtype, "")
        stored_columns = MatrixType(dtype).stored_columns(columns)
        self._expect(f"{name}.weight", tuple(_DTYPES), (rows, stored_columns))
        if dtype not in ("int8", "int4"):
            return StoredMatrix(name, rows, columns, MatrixType(dtype))
        scale = self._file.info(f"{name}.scale")
        groups = scale.shape[-1] if scale.shape else 0
        if groups == 0 or columns % groups:
            raise InflightError(
                f"{self._file.path}: tensor {name}.scale has shape {list(scale.shape)}; "
                f"expected [{rows}, groups] with groups dividing {columns}"
            )
        self._expect(f"{name}.scale", ("F32",), (rows, groups))
        has_minimum = dtype == "int4" and f"{name}.minimum" in self._file.tensors
        if has_minimum:
            self._expect(f"{name}.minimum", ("F32",), (rows, groups))
        return StoredMatrix(name, rows, columns, MatrixType(dtype, columns // groups, has_minimum))

    def _expect(self, name: str, dtypes: tuple[str, ...], shape: tuple[int, ...]) -> None:
        info = self._file.info(name)
        if info.dtype not in dtypes or info.shape != shape:
            raise InflightError(
                f"{self._file.path}: tensor {name} is {info.dtype} {list(info.shape)}; "
                f"{self.directory / 'config.json'} asks for {' or '.join(dtypes)} {list(shape)}"
            )
