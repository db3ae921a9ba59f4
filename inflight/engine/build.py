"""Checkpoint → engine: plan, then pack one matrix at a time."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from inflight._native import available_cpus, pack_matrix
from inflight.checkpoint import canonical
from inflight.checkpoint.huggingface.tokenizer import check_tokenizer
from inflight.checkpoint.matrix import Matrix, MatrixType
from inflight.checkpoint.reader import CheckpointReader, StoredMatrix
from inflight.checkpoint.safetensors import SafetensorsWriter
from inflight.checkpoint.weight_types import embedding_type, linear_type
from inflight.engine.check import check_engine
from inflight.engine.config import FORMAT, BuildOptions, EngineConfig
from inflight.engine.machine import available_memory
from inflight.engine.plan import Machine, MemoryPlan, make_plan
from inflight.engine.sizes import are_half, packed_bytes, vector_bytes
from inflight.json_object import format_of
from inflight.output_directory import staged_directory

_VALUES_AT_A_TIME = 1024 * 1024  # values in flight while a matrix changes its type
_PROBED_ROWS = 16


def build_engine(
    checkpoint: Path | str, out: Path | str, options: BuildOptions = BuildOptions(), progress: bool = True
) -> EngineConfig:
    """Builds the engine that docs/architecture.md describes.

    The result appears at `out` complete or not at all. Memory stays near twice the largest packed matrix.

    Args:
        checkpoint: directory made by `inflight convert`.
        out: directory to make; an earlier engine there is replaced.
        options: limits; what they leave open follows from the model and this machine.
        progress: prints the memory plan before any work, and draws a progress bar on stderr.
    Raises:
        InflightError: the checkpoint is damaged or does not fit its tokenizer, the plan cannot hold one
            sequence (before any work), or `out` cannot be written.
    """
    reader = CheckpointReader(Path(checkpoint))
    plan = plan_engine(reader, options)
    if progress:
        print(plan, flush=True)
    tokenizer = Path(checkpoint) / "tokenizer"
    check_tokenizer(tokenizer, reader.config.vocab_size)
    model = reader.config if options.dtype == "auto" else dataclasses.replace(reader.config, dtype=options.dtype)
    config = EngineConfig(model, plan.config)
    with staged_directory(Path(out), f"an {FORMAT} directory", lambda path: format_of(path) == FORMAT) as stage:
        _write_weights(stage / "rank0.safetensors", reader, _target_types(reader, options), progress)
        shutil.copytree(tokenizer, stage / "tokenizer")
        config.save(stage)
        check_engine(stage)
    return config


def plan_engine(reader: CheckpointReader, options: BuildOptions) -> MemoryPlan:
    """The memory plan for this checkpoint on this machine. Raises InflightError when no sequence fits."""
    types = _target_types(reader, options)
    weights = vector_bytes(reader.config) + sum(
        packed_bytes(types[stored.name], stored.rows, stored.columns, _has_half_scales(reader, stored, types))
        for stored in reader.matrices
    )
    is_quantized = any(matrix_type.is_quantized for matrix_type in types.values())
    return make_plan(reader.config, options, weights, Machine(available_memory(), available_cpus()), is_quantized)


def _target_types(reader: CheckpointReader, options: BuildOptions) -> dict[str, MatrixType]:
    """The type of each matrix in the engine."""
    types = {}
    for stored in reader.matrices:
        choose = embedding_type if stored.name in (canonical.EMBEDDING, canonical.LM_HEAD) else linear_type
        types[stored.name] = choose(stored.name, stored.type, stored.columns, options.dtype)
    return types


def _has_half_scales(reader: CheckpointReader, stored: StoredMatrix, types: dict[str, MatrixType]) -> bool:
    """Whether packing will find float16 enough for the scales, as those from GGUF; told from the first rows."""
    if not stored.type.is_quantized or types[stored.name] != stored.type:
        return False
    rows = reader.matrix(stored, 0, _PROBED_ROWS)
    return are_half(rows.scale) and (rows.minimum is None or are_half(rows.minimum))


def _write_weights(path: Path, reader: CheckpointReader, types: dict[str, MatrixType], progress: bool) -> None:
    vectors = canonical.vector_sizes(reader.config)
    names = [f"{stored.name}.weight" for stored in reader.matrices] + list(vectors)
    values = sum(stored.rows * stored.columns for stored in reader.matrices)
    bar = tqdm(total=values, desc="build", unit=" weights", unit_scale=True, disable=not progress)
    with SafetensorsWriter(path, names) as writer, bar:
        # Blobs first: each is a multiple of 64 bytes long, so that all of them lie at such multiples
        for stored in reader.matrices:
            reader.verify_matrix(stored)
            matrix = _converted(reader, stored, types[stored.name])
            blob = pack_matrix(
                matrix.type.dtype,
                np.ascontiguousarray(matrix.data).reshape(-1).view(np.uint8),
                stored.rows,
                stored.columns,
                None if matrix.scale is None else _aligned(matrix.scale),
                None if matrix.minimum is None else _aligned(matrix.minimum),
            )
            writer.write(f"{stored.name}.weight", "U8", blob)
            bar.update(stored.rows * stored.columns)
        for name in vectors:
            writer.write(name, "F32", reader.vector(name))


def _converted(reader: CheckpointReader, stored: StoredMatrix, target: MatrixType) -> Matrix:
    if stored.type == target:
        return reader.matrix(stored)
    parts = list(_converted_rows(reader, stored, target))
    return Matrix(
        target,
        np.concatenate([part.data for part in parts]),
        np.concatenate([part.scale for part in parts]) if target.is_quantized else None,
        np.concatenate([part.minimum for part in parts]) if target.has_minimum else None,
    )


def _converted_rows(reader: CheckpointReader, stored: StoredMatrix, target: MatrixType) -> Iterator[Matrix]:
    rows_at_a_time = max(1, _VALUES_AT_A_TIME // stored.columns)
    for start in range(0, stored.rows, rows_at_a_time):
        yield reader.matrix(stored, start, start + rows_at_a_time).convert(target)


def _aligned(values: np.ndarray) -> np.ndarray:
    return np.require(values, np.float32, ["C_CONTIGUOUS", "ALIGNED"])
