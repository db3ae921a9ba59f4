"""What a model repository takes from an engine's config.json, the single source of truth."""

import os
from pathlib import Path

from inflight._native import available_cpus
from inflight.engine.config import EngineConfig
from inflight.errors import InflightError
from inflight.json_object import JsonObject


def repository_values(engine: str | Path) -> dict[str, object]:
    """The template variables that follow from an engine and this machine; paths are absolute. Raises InflightError."""
    engine = Path(os.path.abspath(engine))
    build = EngineConfig.load(engine).build_config
    cores = available_cpus()
    return {
        "triton_max_batch_size": build.max_batch_size,
        "max_beam_width": build.max_beam_width,
        "engine_dir": engine,
        "tokenizer_dir": engine / "tokenizer",
        "preprocessing_instance_count": min(max(cores // 4, 2), 4),  # a long prompt takes one for a while
    }


def engine_vocab_size(engine: str | Path) -> int:
    """Number of token ids that an engine of this project or of TensorRT-LLM knows. Raises InflightError."""
    return _section(engine, "pretrained_config").integer("vocab_size", minimum=1)


def engine_end_id(engine: str | Path) -> int | None:
    """The first of the model's end ids; none of an engine of TensorRT-LLM, which does not know them. Raises
    InflightError."""
    return next(iter(_section(engine, "pretrained_config").integers("end_ids", default=())), None)


def engine_limit(engine: str | Path, name: str) -> int:
    """What an engine of this project or of TensorRT-LLM was built for: max_batch_size, max_seq_len or max_beam_width.

    Raises InflightError.
    """
    return _section(engine, "build_config").integer(name, minimum=1)


def _section(engine: str | Path, name: str) -> JsonObject:
    path = Path(engine) / "config.json"
    if not path.is_file():
        raise InflightError(f"{engine} is not an engine: it has no config.json (make one with `inflight build`)")
    return JsonObject.load(path).object(name)
