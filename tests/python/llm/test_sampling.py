"""What is sampled follows the distribution that transformers' logits processors give."""

import threading
from collections import Counter

import numpy as np
import pytest
import torch
from transformers import (
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from inflight import _native

PROMPT = [17, 230, 99, 230, 301, 42]
END_ID = 1
DRAWS = 3000


@pytest.fixture(scope="module")
def logits(engine_dir):
    """[vocab_size] of the first token after PROMPT."""
    return _native.Engine(engine_dir, num_threads=1).logits([PROMPT])[0][-1]


@pytest.fixture(scope="module")
def likely(logits):
    """The most likely tokens, best first."""
    return np.argsort(-logits)


def expected_probabilities(logits, processors):
    scores = torch.from_numpy(logits.copy())[None]
    for processor in processors:
        scores = processor(torch.tensor([PROMPT]), scores)
    return torch.softmax(scores.double(), dim=-1)[0].numpy()


def draw_first_tokens(manager, **sampling):
    """How often each token comes first, over DRAWS seeds."""
    counts = Counter()
    left = threading.Semaphore(0)

    def callback(request_id, response):
        counts[response.tokens[0] if response.tokens else END_ID] += 1
        left.release()

    for seed in range(DRAWS):
        manager.submit(PROMPT, 1, callback, random_seed=seed, end_ids=[END_ID], **sampling)
    for _ in range(DRAWS):
        assert left.acquire(timeout=60)
    return counts


def assert_drawn_from(counts, probabilities):
    assert all(probabilities[token] > 0 for token in counts)
    expected = DRAWS * probabilities
    frequent = expected >= 5
    observed = np.array([counts[token] for token in range(len(probabilities))])
    cells = [*((observed[frequent] - expected[frequent]) ** 2 / expected[frequent])]
    if (rest := expected[~frequent].sum()) >= 5:
        cells.append((observed[~frequent].sum() - rest) ** 2 / rest)
    degrees = max(len(cells) - 1, 1)
    assert sum(cells) < degrees + 4 * np.sqrt(2 * degrees)


@pytest.mark.parametrize(
    "sampling, processors",
    [
        ({"top_p": 1.0}, []),
        ({"top_p": 1.0, "temperature": 0.6}, [TemperatureLogitsWarper(0.6)]),
        ({"top_k": 7}, [TopKLogitsWarper(7)]),
        ({"top_p": 0.7}, [TopPLogitsWarper(0.7)]),
        (
            {"top_k": 40, "top_p": 0.8, "temperature": 1.5},
            [TemperatureLogitsWarper(1.5), TopKLogitsWarper(40), TopPLogitsWarper(0.8)],
        ),
        (
            {"top_p": 0.95, "repetition_penalty": 1.8},
            [RepetitionPenaltyLogitsProcessor(1.8), TopPLogitsWarper(0.95)],
        ),
    ],
    ids=str,
)
def test_draws_match_transformers(manager, logits, sampling, processors):
    assert_drawn_from(draw_first_tokens(manager, **sampling), expected_probabilities(logits, processors))


def test_bad_words_match_transformers(manager, logits, likely):
    bad_words = [[int(likely[0])], [PROMPT[-1], int(likely[1])], [PROMPT[0], int(likely[2])]]
    processors = [NoBadWordsLogitsProcessor(bad_words, eos_token_id=END_ID), TopKLogitsWarper(10)]
    counts = draw_first_tokens(manager, top_k=10, bad_words=bad_words)
    assert_drawn_from(counts, expected_probabilities(logits, processors))
    assert counts[likely[2]] > 0


def test_min_length_matches_transformers(manager, logits):
    processors = [MinNewTokensLengthLogitsProcessor(len(PROMPT), 1, torch.tensor([END_ID])), TopPLogitsWarper(0.99)]
    counts = draw_first_tokens(manager, top_p=0.99, min_length=1)
    assert counts[END_ID] == 0
    assert_drawn_from(counts, expected_probabilities(logits, processors))


def test_log_probs_are_the_model_s_own(manager, logits, likely):
    finished = threading.Event()
    responses = []

    def callback(request_id, response):
        responses.append(response)
        finished.set()

    manager.submit(PROMPT, 1, callback, temperature=0.3, top_k=1, repetition_penalty=1.1, return_log_probs=True)
    assert finished.wait(30)
    (token,) = responses[0].tokens
    expected = torch.log_softmax(torch.from_numpy(logits), dim=-1)[token]
    assert responses[0].log_probs[0] == pytest.approx(float(expected), abs=1e-4)


def test_a_seed_gives_the_same_tokens_in_any_batch(manager):
    def run(copies):
        tokens, left = [], threading.Semaphore(0)

        def callback(request_id, response):
            tokens.append(response.tokens)
            left.release()

        for _ in range(copies):
            manager.submit(PROMPT, 40, callback, top_p=0.9, random_seed=5, end_ids=[-1])
        for _ in range(copies):
            assert left.acquire(timeout=60)
        return tokens

    (alone,) = run(1)
    assert all(tokens == alone for tokens in run(8))
    assert len(set(alone)) > 10
