"""Beam search through the batch manager: beams, scores and log-probabilities equal transformers'."""

import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
import tiny_models
import torch
from hf_reference import TIE
from transformers import GenerationConfig

MODELS = ["llama", "qwen3", "mistral-sliding-window"]
EARLY_STOPPING = [True, False, "never"]
OWN_END_ID = tiny_models.SIZE["eos_token_id"]
PAD_ID = tiny_models.SIZE["pad_token_id"]
VOCABULARY = 400  # ids that every tiny model has
SEARCHES = 12  # of each combination


@dataclass
class Search:
    """A prompt and the settings of one beam search, under our names."""

    prompt: list[int]
    max_new_tokens: int
    beam_width: int
    num_return_sequences: int
    length_penalty: float
    early_stopping: bool | str
    end_ids: list[int] = field(default_factory=lambda: [OWN_END_ID])
    min_length: int = 0
    repetition_penalty: float = 1.0
    bad_words: list[list[int]] = field(default_factory=list)


@dataclass
class Found:
    """A beam that one of the two found."""

    tokens: list[int]  # with the end id
    score: float
    log_probs: list[float]


def random_search(generator: np.random.Generator, early_stopping: bool | str) -> Search:
    beam_width = int(generator.integers(2, 9))
    return Search(
        prompt=generator.integers(2, VOCABULARY, generator.integers(1, 40)).tolist(),
        max_new_tokens=int(generator.integers(1, 24)),
        beam_width=beam_width,
        num_return_sequences=int(generator.integers(1, beam_width + 1)),
        length_penalty=float(generator.choice([0.0, 0.5, 1.0, 2.0, -1.0])),
        early_stopping=early_stopping,
    )


def with_end_ids(search: Search, model, generator: np.random.Generator) -> Search:
    """The same search, where up to three tokens of the beams that it finds are end ids."""
    tokens = {token for beam in transformers_beams(model, search) for token in beam.tokens} - {OWN_END_ID}
    count = min(len(tokens), int(generator.integers(0, 4)))
    chosen = generator.choice(sorted(tokens), count, replace=False) if tokens else []
    search.end_ids = [OWN_END_ID, *map(int, chosen)]
    return search


@torch.no_grad()
def transformers_beams(model, search: Search) -> list[Found]:
    config = GenerationConfig(
        num_beams=search.beam_width,
        num_return_sequences=search.num_return_sequences,
        length_penalty=search.length_penalty,
        early_stopping=search.early_stopping,
        max_new_tokens=search.max_new_tokens,
        min_new_tokens=search.min_length or None,
        repetition_penalty=search.repetition_penalty,
        bad_words_ids=search.bad_words or None,
        eos_token_id=search.end_ids,
        pad_token_id=PAD_ID,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
    )
    prompt = torch.tensor([search.prompt])
    output = model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=config)
    log_probs = model.compute_transition_scores(output.sequences, output.scores, output.beam_indices)
    lengths = (output.beam_indices >= 0).sum(dim=1).tolist()
    tokens = output.sequences[:, len(search.prompt) :]
    return [
        Found(tokens[i, :length].tolist(), output.sequences_scores[i].item(), log_probs[i, :length].tolist())
        for i, length in enumerate(lengths)
    ]


def our_beams(manager, searches: list[Search]) -> list[list[Found]]:
    """All searches at once."""
    responses, ended = {}, threading.Semaphore(0)

    def take(request_id, response):
        responses[request_id] = response
        if response.is_final:
            ended.release()

    ids = []
    for search in searches:
        settings = {name: value for name, value in vars(search).items() if name not in ("prompt", "max_new_tokens")}
        ids.append(manager.submit(search.prompt, search.max_new_tokens, take, **settings))
    for _ in ids:
        assert ended.acquire(timeout=60), "a beam search did not end"
    return [_found(search, responses[i]) for search, i in zip(searches, ids, strict=True)]


def _found(search: Search, response) -> list[Found]:
    assert response.error is None, response.error
    found = []
    for beam in response.beams:
        tokens, log_probs = list(beam.tokens), list(beam.log_probs)
        if beam.finish_reason == "end_id":  # which one, the beam does not say
            tokens.append(None)
            log_probs.append(beam.cum_log_prob - sum(log_probs))
        assert sum(log_probs) == pytest.approx(beam.cum_log_prob, abs=1e-3)
        found.append(Found(tokens, beam.cum_log_prob / len(tokens) ** search.length_penalty, log_probs))
    return found


def assert_equal(search: Search, ours: list[Found], reference: list[Found]) -> None:
    """Scores equal in order, and tokens but for beams that tie."""
    assert len(ours) == len(reference) == search.num_return_sequences
    scores = [beam.score for beam in reference]
    np.testing.assert_allclose([beam.score for beam in ours], scores, rtol=1e-4, atol=1e-4, err_msg=str(search))
    for i, (beam, expected) in enumerate(zip(ours, reference, strict=True)):
        if any(abs(expected.score - score) < TIE for score in scores[:i] + scores[i + 1 :]):
            continue
        ends = expected.tokens[-1] in search.end_ids
        assert beam.tokens == [*expected.tokens[:-1], None if ends else expected.tokens[-1]], (i, search)
        np.testing.assert_allclose(beam.log_probs, expected.log_probs, rtol=0, atol=1e-3, err_msg=str(search))


@pytest.fixture
def manager(name, tiny_engine):
    from inflight._native import BatchManager

    engine = tiny_engine(
        name, max_batch_size=16, max_num_tokens=64, max_seq_len=96, tokens_per_block=8, max_beam_width=8
    )
    with BatchManager(engine, num_threads=1) as manager:
        yield manager
        assert manager.statistics()["kv_cache"]["used_blocks"] == 0


@pytest.mark.parametrize("early_stopping", EARLY_STOPPING)
@pytest.mark.parametrize("name", MODELS)
def test_beams_equal_those_of_transformers(name, early_stopping, manager, tiny_reference):
    model, generator = tiny_reference(name), np.random.default_rng(0)
    searches = [with_end_ids(random_search(generator, early_stopping), model, generator) for _ in range(SEARCHES)]
    for search, ours in zip(searches, our_beams(manager, searches), strict=True):
        assert_equal(search, ours, transformers_beams(model, search))


@pytest.mark.parametrize("name", ["llama"])
def test_penalties_and_masks_apply_to_log_probabilities_as_in_transformers(name, manager, tiny_reference):
    model, generator = tiny_reference(name), np.random.default_rng(1)
    searches = []
    for _ in range(SEARCHES):
        search = with_end_ids(random_search(generator, "never"), model, generator)
        beam = transformers_beams(model, search)[0].tokens
        search.repetition_penalty = float(generator.choice([1.0, 1.3, 0.8]))
        search.min_length = int(generator.integers(0, 6))
        search.bad_words = [word for word in (beam[:1], beam[2:4]) if word and not set(word) & set(search.end_ids)]
        searches.append(search)
    for search, ours in zip(searches, our_beams(manager, searches), strict=True):
        assert_equal(search, ours, transformers_beams(model, search))


@pytest.mark.parametrize("name", ["llama"])
def test_stop_words_end_beams_and_remain_part_of_them(name, manager, tiny_reference):
    model, generator = tiny_reference(name), np.random.default_rng(2)
    search = random_search(generator, "never")
    search.max_new_tokens = 16
    stop_word = transformers_beams(model, search)[0].tokens[5:7]
    responses, ended = [], threading.Event()

    def take(request_id, response):
        responses.append(response)
        ended.set()

    options = dict(beam_width=search.beam_width, num_return_sequences=search.beam_width, early_stopping=True)
    manager.submit(search.prompt, search.max_new_tokens, take, stop_words=[stop_word], **options)
    assert ended.wait(60)
    stopped = [beam for beam in responses[0].beams if beam.finish_reason == "stop_words"]
    assert stopped
    for beam in responses[0].beams:
        ends = [i + 2 for i in range(len(beam.tokens) - 1) if list(beam.tokens[i : i + 2]) == stop_word]
        assert ends == ([len(beam.tokens)] if beam in stopped else [])
