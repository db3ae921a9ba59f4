"""inflight._native.Engine: teacher-forced logits. Equality with transformers: tests/python/reference."""

import numpy as np
import pytest

from inflight import _native
from inflight.errors import InflightError


@pytest.fixture(scope="module")
def engine(engine_dir):
    return _native.Engine(engine_dir, num_threads=1)


@pytest.fixture(scope="module")
def sequences():
    generator = np.random.default_rng(0)
    return [generator.integers(480, size=length).tolist() for length in (1, 7, 33, 64, 100, 12, 5, 80, 41, 256)]


def test_there_is_a_row_for_every_token(engine, sequences):
    logits = engine.logits(sequences)
    assert [array.shape for array in logits] == [(len(sequence), 480) for sequence in sequences]
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in logits)


@pytest.mark.parametrize(
    "options", [{"chunk_size": 1}, {"chunk_size": 3, "tokens_per_step": 10}, {"tokens_per_step": 17}]
)
def test_chunks_and_neighbors_do_not_change_the_logits(engine, sequences, options):
    alone = [engine.logits([sequence])[0] for sequence in sequences]
    for array, expected in zip(engine.logits(sequences, **options), alone, strict=True):
        np.testing.assert_allclose(array, expected, atol=1e-4)


@pytest.mark.parametrize(
    "sequences, options, message",
    [
        ([[1], []], {}, "sequence 1 is empty"),
        ([[1] * 257], {}, "sequence 0 has 257 tokens; this engine takes at most 256"),
        ([[1, 480]], {}, "sequence 0 holds token 480; token ids of this model are 0 to 479"),
        ([[1]], {"chunk_size": 0}, "chunk_size is 0"),
        ([[1]], {"tokens_per_step": -1}, "tokens_per_step is -1"),
    ],
)
def test_what_the_engine_cannot_hold_is_named(engine, sequences, options, message):
    with pytest.raises(InflightError, match=message):
        engine.logits(sequences, **options)
