"""The engine of the model that drafts for an LLM."""

from pathlib import Path

from inflight.engine.config import FORMAT, EngineConfig
from inflight.engine.draft_engine_check import draft_engine_misfits
from inflight.errors import InflightError
from inflight.json_object import format_of
from inflight.llm.engine_cache import engine_directory


def draft_engine_directory(model: Path, target: Path, cache_dir: str | Path | None, progress: bool) -> Path:
    """The engine at `model`, or the cached one made from the model or checkpoint there with the limits of the engine
    `target`. Raises InflightError where the two do not go together."""
    limits = {}
    if format_of(model.expanduser()) != FORMAT:
        build = EngineConfig.load(target).build_config
        limits = {name: getattr(build, name) for name in ("max_batch_size", "max_num_tokens", "max_seq_len")}
    draft_engine = engine_directory(model, cache_dir, progress, **limits)
    if misfits := list(draft_engine_misfits(target, draft_engine)):
        raise InflightError("model of speculative_config: " + "; ".join(misfits))
    return draft_engine
