"""Whether an engine's or a checkpoint's files are as they were written, to the last byte of the weights."""

from pathlib import Path

from inflight.checkpoint import canonical
from inflight.checkpoint.huggingface.tokenizer import check_tokenizer
from inflight.checkpoint.reader import CheckpointReader
from inflight.checkpoint.safetensors import SafetensorsReader
from inflight.engine.config import EngineConfig


def check_engine(directory: Path) -> EngineConfig:
    """Reads all of the weights. Raises InflightError naming the file, and the tensor or field, that is damaged."""
    config = EngineConfig.load(directory)
    model = config.pretrained_config
    weights = SafetensorsReader(directory / "rank0.safetensors")
    matrices = [f"{name}.weight" for name in canonical.matrix_shapes(model)]
    weights.expect_names([*matrices, *canonical.vector_sizes(model)])
    for name in weights.names():
        weights.verify(name)
    check_tokenizer(directory / "tokenizer", model.vocab_size)
    return config


def check_checkpoint(directory: Path) -> CheckpointReader:
    """The same for a checkpoint."""
    reader = CheckpointReader(directory)
    reader.verify()
    check_tokenizer(directory / "tokenizer", reader.config.vocab_size)
    return reader
