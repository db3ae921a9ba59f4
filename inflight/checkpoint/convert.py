"""Hugging Face or GGUF model → checkpoint, a few rows of one matrix at a time."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from inflight.checkpoint import canonical
from inflight.checkpoint.config import FORMAT, ModelConfig
from inflight.checkpoint.matrix import SAFETENSORS_DTYPES, MatrixType, widest
from inflight.checkpoint.safetensors import SafetensorsWriter, TensorRegion
from inflight.checkpoint.source import ModelSource, SourceMatrix
from inflight.checkpoint.source_hints import refuse_pointers, refuse_what_is_no_model
from inflight.checkpoint.weight_types import DEFAULT_GROUP_SIZE, check_dtype, embedding_type, linear_type
from inflight.errors import InflightError
from inflight.json_object import format_of
from inflight.output_directory import staged_directory

_VALUES_AT_A_TIME = 1024 * 1024  # values in flight: 4 MiB as float32, and a few temporaries of that size


@dataclass(frozen=True)
class OutputMatrix:
    """A matrix of the checkpoint: source matrices fused by rows, in one type."""

    name: str  # less ".weight"
    parts: list[SourceMatrix]
    type: MatrixType

    @property
    def rows(self) -> int:
        return sum(part.shape[0] for part in self.parts)

    @property
    def columns(self) -> int:
        return self.parts[0].shape[1]

    def tensor_names(self) -> list[str]:
        names = [f"{self.name}.weight"]
        if self.type.is_quantized:
            names.append(f"{self.name}.scale")
        if self.type.has_minimum:
            names.append(f"{self.name}.minimum")
        return names


@dataclass(frozen=True)
class OutputVector:
    """A norm weight or a bias: float32, source vectors one after another."""

    name: str
    sources: list[str]
    values: np.ndarray


def convert_checkpoint(
    source: Path | str,
    out: Path | str,
    dtype: str = "auto",
    progress: bool = True,
    group_size: int = DEFAULT_GROUP_SIZE,
) -> ModelConfig:
    """Converts a model to the checkpoint that docs/architecture.md describes.

    The result appears at `out` complete or not at all. Memory stays at a few rows of one matrix,
    whatever the size of the model.

    Args:
        source: a Hugging Face directory with safetensors weights, or a GGUF file.
        out: directory to make; an earlier checkpoint there is replaced.
        dtype: type of all matrices. "auto" keeps each one's own (GGUF's integers without loss where they have a
            scale of 16 or 32 columns; others as int8 in groups of 32, see gguf_blocks). "int8" is per channel from
            floating point. "int4" leaves embedding and lm_head at int8 in groups of 32. See weight_types.
        progress: draws a progress bar on stderr.
        group_size: columns that share a scale and a minimum in "int4" from wider sources.
    Raises:
        InflightError: the source is not a supported model, or is damaged, or `out` cannot be written.
    """
    check_dtype(dtype, group_size)
    model = open_source(Path(source))
    config = model.config if dtype == "auto" else dataclasses.replace(model.config, dtype=dtype)
    matrices = list(_plan_matrices(model, dtype, group_size))
    vectors = list(_plan_vectors(model))
    model.check_all_used(
        {f"{part.name}.weight" for matrix in matrices for part in matrix.parts}
        | {name for vector in vectors for name in vector.sources}
    )
    with staged_directory(Path(out), f"an {FORMAT} directory", lambda path: format_of(path) == FORMAT) as stage:
        (stage / "tokenizer").mkdir()
        model.save_tokenizer(stage / "tokenizer")  # first: a tokenizer that is refused costs no waiting
        names = [name for matrix in matrices for name in matrix.tensor_names()] + [vector.name for vector in vectors]
        values = sum(matrix.rows * matrix.columns for matrix in matrices)
        bar = tqdm(total=values, desc="convert", unit=" weights", unit_scale=True, disable=not progress)
        with SafetensorsWriter(stage / "rank0.safetensors", names) as writer, bar:
            for matrix in matrices:
                _write_matrix(writer, matrix, bar)
            for vector in vectors:
                writer.write(vector.name, "F32", vector.values)
        config.save(stage)
    return config


def open_source(path: Path) -> ModelSource:
    """Opens a model by what it is: a file is GGUF, a directory Hugging Face's. Raises InflightError."""
    refuse_pointers(path)
    if path.is_dir() and format_of(path) == FORMAT:
        raise InflightError(f"{path} is a checkpoint already: make an engine of it with `inflight build`")
    refuse_what_is_no_model(path)
    if path.is_dir():
        from inflight.checkpoint.huggingface.source import HuggingFaceSource

        return HuggingFaceSource(path)
    if path.is_file():
        from inflight.checkpoint.gguf.source import GgufSource

        return GgufSource(path)
    raise InflightError(f"{path} does not exist: give a Hugging Face directory or a GGUF file")


def _plan_matrices(model: ModelSource, dtype: str, group_size: int) -> Iterator[OutputMatrix]:
    config = model.config
    source_names = {canonical.EMBEDDING: model.embedding_name, canonical.LM_HEAD: model.lm_head_name}
    for name in canonical.embeddings(config):
        part = model.matrix(source_names[name], config.vocab_size, config.hidden_size)
        yield OutputMatrix(name, [part], embedding_type(part.name, part.type, part.shape[1], dtype))
    for layer in range(config.num_hidden_layers):
        for name, part_names in canonical.LINEAR_PARTS.items():
            parts = [
                model.matrix(model.part_name(layer, part), *canonical.part_shape(config, part)) for part in part_names
            ]
            source_type = widest([part.type for part in parts])
            target = linear_type(parts[0].name, source_type, parts[0].shape[1], dtype, group_size)
            yield OutputMatrix(canonical.layer_prefix(layer) + name, parts, target)


def _plan_vectors(model: ModelSource) -> Iterator[OutputVector]:
    config = model.config
    for layer in range(config.num_hidden_layers):
        prefix = canonical.layer_prefix(layer)
        for name, size in canonical.norm_sizes(config).items():
            yield _read_vector(model, f"{prefix}{name}.weight", {model.norm_name(layer, canonical.NORMS[name]): size})
        for name in canonical.biased_linears(config):
            sizes = {
                f"{model.part_name(layer, part)}.bias": canonical.part_shape(config, part)[0]
                for part in canonical.LINEAR_PARTS[name]
            }
            yield _read_vector(model, f"{prefix}{name}.bias", sizes)
    yield _read_vector(model, canonical.FINAL_NORM, {model.final_norm_name: config.hidden_size})


def _read_vector(model: ModelSource, name: str, sizes: dict[str, int]) -> OutputVector:
    values = np.concatenate([model.vector(source, size) for source, size in sizes.items()])
    return OutputVector(name, list(sizes), values)


def _write_matrix(writer: SafetensorsWriter, matrix: OutputMatrix, bar: tqdm) -> None:
    weight, *grouped = _reserve(writer, matrix)
    rows_at_a_time = max(1, _VALUES_AT_A_TIME // matrix.columns)
    for part in matrix.parts:
        for start in range(0, part.shape[0], rows_at_a_time):
            stop = min(start + rows_at_a_time, part.shape[0])
            try:
                rows = part.read(start, stop).convert(matrix.type)
                rows.check_scales()
            except InflightError as error:
                raise InflightError(f"{part.name}.weight, rows {start} to {stop}: {error}") from error
            weight.write(rows.data)
            for region, values in zip(
                grouped, [each for each in (rows.scale, rows.minimum) if each is not None], strict=True
            ):
                region.write(values.astype(np.float32, copy=False))
            bar.update((stop - start) * matrix.columns)


def _reserve(writer: SafetensorsWriter, matrix: OutputMatrix) -> list[TensorRegion]:
    shape = (matrix.rows, matrix.type.stored_columns(matrix.columns))
    weight, *grouped = matrix.tensor_names()
    regions = [writer.reserve(weight, SAFETENSORS_DTYPES[matrix.type.dtype], shape)]
    for name in grouped:
        regions.append(writer.reserve(name, "F32", (matrix.rows, matrix.columns // matrix.type.group_size)))
    return regions
