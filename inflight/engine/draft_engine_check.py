"""Whether the engine of a draft model goes with the engine that it drafts for."""

from collections.abc import Iterator
from pathlib import Path

from inflight.engine.tokenizer_check import tokenizer_difference
from inflight.repository.engine_values import engine_limit, engine_vocab_size


def draft_engine_misfits(engine: str | Path, draft_engine: str | Path) -> Iterator[str]:
    """What is wrong, with the files and both values. Raises InflightError for an engine that cannot be read."""
    vocab_sizes = engine_vocab_size(draft_engine), engine_vocab_size(engine)
    if vocab_sizes[0] != vocab_sizes[1]:
        yield (
            f"the draft engine {draft_engine}/config.json has a vocabulary of {vocab_sizes[0]}, but "
            f"{engine}/config.json one of {vocab_sizes[1]}; both models must have one tokenizer"
        )
    elif difference := tokenizer_difference(draft_engine, engine):
        yield (
            f"the tokenizers of the draft engine {draft_engine} and of {engine} differ: {difference}; both models "
            "must have one tokenizer"
        )
    for name in ("max_batch_size", "max_seq_len"):
        limit, needed = engine_limit(draft_engine, name), engine_limit(engine, name)
        if limit < needed:
            yield (
                f"the draft engine {draft_engine}/config.json was built with {name} {limit}, but "
                f"{engine}/config.json with {needed}; rebuild the draft engine with --{name.replace('_', '-')} {needed}"
            )
