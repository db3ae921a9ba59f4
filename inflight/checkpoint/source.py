"""What a model to convert looks like to the converter, whichever file format it comes in."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from inflight.checkpoint.config import ModelConfig
from inflight.checkpoint.matrix import Matrix, MatrixType


@dataclass(frozen=True)
class SourceMatrix:
    """A matrix of the source. `read(start, stop)` gives a range of rows, in the checkpoint's row order."""

    name: str
    shape: tuple[int, int]
    type: MatrixType
    read: Callable[[int, int], Matrix]


class ModelSource(Protocol):
    """A model's configuration, tensors and tokenizer.

    Tensors are asked for by the source's own names, which `part_name`, `norm_name` and the attributes give.
    Methods raise InflightError naming the file, the tensor or key, what was expected and what was found.
    """

    config: ModelConfig  # `dtype` is that of most of the source's linear weights
    embedding_name: str
    final_norm_name: str
    lm_head_name: str

    def part_name(self, layer: int, part: str) -> str:
        """Name, less ".weight" or ".bias", of a part of canonical.LINEAR_PARTS."""

    def norm_name(self, layer: int, norm: str) -> str:
        """Name of the tensor of one of canonical.NORMS' values."""

    def matrix(self, name: str, rows: int, columns: int) -> SourceMatrix:
        """A matrix of known shape."""

    def vector(self, name: str, size: int) -> np.ndarray:
        """A float32 vector of known size, in the checkpoint's order."""

    def check_all_used(self, names: set[str]) -> None:
        """Refuses a source that holds weights beside `names`: it is another model than its config says."""

    def save_tokenizer(self, directory: Path) -> None:
        """Writes tokenizer.json and what belongs to it into an existing directory."""
