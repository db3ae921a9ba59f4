"""Hugging Face or GGUF model → checkpoint, a few rows of one matrix at a time."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np
from tqdm import tqdm

from inflight.checkpoint.config import FORMAT, WEIGHT_DTYPES, ModelConfig
from inflight.checkpoint.matrix import SAFETENSORS_DTYPES, MatrixType, widest
from inflight.checkpoint.output_directory import staged_directory
from inflight.checkpoint.safetensors import SafetensorsWriter, TensorRegion
from inflight.checkpoint.source import ModelSource, SourceMatrix
from inflight.errors import InflightError

DTYPES = ("auto", *WEIGHT_DTYPES)
EMBEDDING_GROUP_SIZE = 32
_CHUNK_VALUES = 4 * 1024 * 1024  # values in flight: 16 MiB as float32, and a few temporaries of that size


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
    source: Path | str, out: Path | str, dtype: str = "auto", progress: bool = True, group_size: int = 32
) -> ModelConfig:
    """Converts a model to the checkpoint that docs/architecture.md describes.

    The result appears at `out` complete or not at all. Memory stays at a few row blocks of one matrix,
    whatever the size of the model.

    Args:
        source: a Hugging Face directory with safetensors weights, or a GGUF file.
        out: directory to make; an earlier checkpoint there is replaced.
        dtype: type of all matrices. "auto" keeps each one's own (GGUF's Q4_0, Q4_1, Q4_K and Q8_0 without
            loss; Q5_K and Q6_K as int8 in groups of 32). "int8" is per channel from floating point; "int4"
            leaves embedding and lm_head at int8 in groups of 32, where 4 bits would cost most. A matrix
            that the source already holds in the wanted type, or in int4 or int8 where the embedding is
            concerned, is carried over without loss.
        progress: draws a progress bar on stderr.
        group_size: columns that share a scale and a minimum in "int4" from wider sources.
    Raises:
        InflightError: the source is not a supported model, or is damaged, or `out` cannot be written.
    """
    if dtype not in DTYPES:
        raise InflightError(f"dtype is {dtype}; expected one of {', '.join(DTYPES)}")
    if group_size < 2 or group_size % 2:
        raise InflightError(f"group size is {group_size}; expected an even number of columns")
    model = open_source(Path(source))
    config = model.config if dtype == "auto" else dataclasses.replace(model.config, dtype=dtype)
    matrices = list(_plan_matrices(model, dtype, group_size))
    vectors = list(_plan_vectors(model))
    model.check_all_used(
        {f"{part.name}.weight" for matrix in matrices for part in matrix.parts}
        | {name for vector in vectors for name in vector.sources}
    )
    with staged_directory(Path(out), FORMAT) as stage:
        names = [name for matrix in matrices for name in matrix.tensor_names()] + [vector.name for vector in vectors]
        values = sum(matrix.rows * matrix.columns for matrix in matrices)
        bar = tqdm(total=values, desc="convert", unit=" weights", unit_scale=True, disable=not progress)
        with SafetensorsWriter(stage / "rank0.safetensors", names) as writer, bar:
            for matrix in matrices:
                _write_matrix(writer, matrix, bar)
            for vector in vectors:
                writer.write(vector.name, "F32", vector.values)
        (stage / "tokenizer").mkdir()
        model.save_tokenizer(stage / "tokenizer")
        config.save(stage)
    return config


def open_source(path: Path) -> ModelSource:
    """Opens a model by what it is: a file is GGUF, a directory Hugging Face's. Raises InflightError."""
    if path.is_dir():
        from inflight.checkpoint.huggingface_source import HuggingFaceSource

        return HuggingFaceSource(path)
    if path.is_file():
        from inflight.checkpoint.gguf_source import GgufSource

        return GgufSource(path)
    raise InflightError(f"{path} does not exist: give a Hugging Face directory or a GGUF file")


def _plan_matrices(model: ModelSource, dtype: str, group_size: int) -> Iterator[OutputMatrix]:
    config = model.config
    hidden, attention, kv = config.hidden_size, config.attention_size, config.num_key_value_heads * config.head_size
    fused = {
        "attention.qkv": ({"q": attention, "k": kv, "v": kv}, hidden),
        "attention.dense": ({"dense": hidden}, attention),
        "mlp.gate_up": ({"gate": config.intermediate_size, "up": config.intermediate_size}, hidden),
        "mlp.down": ({"down": hidden}, config.intermediate_size),
    }
    embeddings = {"transformer.vocab_embedding": model.embedding_name}
    if not config.tie_word_embeddings:
        embeddings["lm_head"] = model.lm_head_name
    for name, source_name in embeddings.items():
        parts = [model.matrix(source_name, config.vocab_size, hidden)]
        yield OutputMatrix(name, parts, _embedding_type(parts[0], dtype))
    for layer in range(config.num_hidden_layers):
        for name, (rows, columns) in fused.items():
            parts = [model.matrix(model.part_name(layer, part), rows[part], columns) for part in rows]
            yield OutputMatrix(
                f"transformer.layers.{layer}.{name}", parts, _linear_type(parts, dtype, group_size)
            )


def _plan_vectors(model: ModelSource) -> Iterator[OutputVector]:
    config = model.config
    hidden, attention, kv = config.hidden_size, config.attention_size, config.num_key_value_heads * config.head_size
    norms = {"input_layernorm": ("input", hidden), "post_layernorm": ("post", hidden)}
    if config.qk_norm:
        norms["attention.q_layernorm"] = ("q", config.head_size)
        norms["attention.k_layernorm"] = ("k", config.head_size)
    biases: dict[str, dict[str, int]] = {}
    if config.qkv_bias:
        biases["attention.qkv"] = {"q": attention, "k": kv, "v": kv}
    if config.dense_bias:
        biases["attention.dense"] = {"dense": hidden}
    if config.mlp_bias:
        biases["mlp.gate_up"] = {"gate": config.intermediate_size, "up": config.intermediate_size}
        biases["mlp.down"] = {"down": hidden}
    for layer in range(config.num_hidden_layers):
        prefix = f"transformer.layers.{layer}"
        for name, (norm, size) in norms.items():
            yield _read_vector(model, f"{prefix}.{name}.weight", {model.norm_name(layer, norm): size})
        for name, sizes in biases.items():
            parts = {f"{model.part_name(layer, part)}.bias": size for part, size in sizes.items()}
            yield _read_vector(model, f"{prefix}.{name}.bias", parts)
    yield _read_vector(model, "transformer.ln_f.weight", {model.final_norm_name: hidden})


def _read_vector(model: ModelSource, name: str, sizes: dict[str, int]) -> OutputVector:
    values = np.concatenate([model.vector(source, size) for source, size in sizes.items()])
    return OutputVector(name, list(sizes), values)


def _linear_type(parts: list[SourceMatrix], dtype: str, group_size: int) -> MatrixType:
    columns = parts[0].shape[1]
    source = widest([part.type for part in parts])
    if dtype in ("auto", source.dtype):
        return source
    if dtype == "int8":
        return MatrixType("int8", source.group_size or columns)
    if dtype == "int4":
        if columns % group_size:
            raise InflightError(
                f"{parts[0].name} has {columns} columns, which groups of {group_size} do not divide: "
                "choose another --group-size or --dtype int8"
            )
        return MatrixType("int4", group_size, has_minimum=True)
    return MatrixType(dtype)


def _embedding_type(part: SourceMatrix, dtype: str) -> MatrixType:
    if dtype != "int4":
        return _linear_type([part], dtype, EMBEDDING_GROUP_SIZE)
    if part.type.is_quantized:
        return part.type
    columns = part.shape[1]
    return MatrixType("int8", columns if columns % EMBEDDING_GROUP_SIZE else EMBEDDING_GROUP_SIZE)


def _write_matrix(writer: SafetensorsWriter, matrix: OutputMatrix, bar: tqdm) -> None:
    weight, *grouped = _reserve(writer, matrix)
    step = max(1, _CHUNK_VALUES // matrix.columns)
    for part in matrix.parts:
        for start in range(0, part.shape[0], step):
            stop = min(start + step, part.shape[0])
            try:
                rows = part.read(start, stop).convert(matrix.type)
            except InflightError as error:
                raise InflightError(f"{part.name}.weight, rows {start} to {stop}: {error}") from error
            weight.write(rows.data)
            for region, values in zip(grouped, (rows.scale, rows.minimum)):
                region.write(values.astype(np.float32, copy=False))
            bar.update((stop - start) * matrix.columns)


def _reserve(writer: SafetensorsWriter, matrix: OutputMatrix) -> list[TensorRegion]:
    shape = (matrix.rows, matrix.type.stored_columns(matrix.columns))
    weight, *grouped = matrix.tensor_names()
    regions = [writer.reserve(weight, SAFETENSORS_DTYPES[matrix.type.dtype], shape)]
    for name in grouped:
        regions.append(writer.reserve(name, "F32", (matrix.rows, matrix.columns // matrix.type.group_size)))
    return regions
