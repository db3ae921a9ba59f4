"""Several sequences, beams, drafts, logits, biases and guides, as TensorRT-LLM's tensors ask for them."""

import json

import numpy as np
import pytest
import tritonclient.http as httpclient
from greedy import greedy_tokens
from requests_of_ids import request, stream, strings, tensors

PROMPT = (5, 6, 7, 200)
MAX_TOKENS = 24
VOCAB_SIZE = 480


@pytest.fixture(scope="module")
def expected(engine) -> list[int]:
    """The tokens that follow PROMPT."""
    return greedy_tokens(engine, [list(PROMPT)], MAX_TOKENS)[0]


@pytest.fixture
def infer(http):
    """infer(model="coupled", **tensors): the answer to a request of PROMPT without the prompt."""

    def infer(model: str = "coupled", **others):
        arrays = {"end_id": -1, "exclude_input_in_output": True, **others}
        return http.infer(model, tensors(httpclient, request(PROMPT, MAX_TOKENS, **arrays)))

    return infer


def tokens(result) -> list[int]:
    return result.as_numpy("output_ids")[0, 0].tolist()


def seed(value: int) -> np.ndarray:
    return np.array([[value]], np.uint64)


def ints(*values) -> np.ndarray:
    return np.array([values], np.int32)


SAMPLING = {"runtime_top_k": 50, "temperature": 1.5}


class TestSequences:
    @pytest.mark.parametrize("streaming", [False, True])
    def test_each_has_responses_of_its_own_and_the_next_seed(self, grpc, infer, streaming):
        arrays = request(PROMPT, MAX_TOKENS, end_id=-1, random_seed=seed(7), num_return_sequences=3, **SAMPLING)
        sequences = {index: [] for index in range(3)}
        finished = []
        for result in stream(grpc, {**arrays, "streaming": np.array([[streaming]])}):
            index = result.as_numpy("sequence_index").item()
            preceding = ([-1] * 16 + sequences[index])[-16:]
            assert result.as_numpy("preceding_ids").tolist() == [preceding]
            sequences[index] += tokens(result)
            if result.as_numpy("sequence_finished").item():
                finished.append(index)
        prompt = [] if streaming else list(PROMPT)
        alone = [tokens(infer(random_seed=seed(7 + index), **SAMPLING)) for index in range(3)]
        assert list(sequences.values()) == [prompt + generated for generated in alone]
        assert sorted(finished) == [0, 1, 2]


class TestBeams:
    def test_they_are_the_rows_of_one_response_best_first(self, infer):
        result = infer(beam_width=4, return_log_probs=True)
        ids = result.as_numpy("output_ids")
        assert ids.shape == (1, 4, MAX_TOKENS) and len({tuple(beam) for beam in ids[0]}) == 4
        assert result.as_numpy("sequence_length").tolist() == [[MAX_TOKENS] * 4]
        log_probs, cum_log_probs = result.as_numpy("output_log_probs"), result.as_numpy("cum_log_probs")
        assert log_probs.shape == (1, 4, MAX_TOKENS)
        np.testing.assert_allclose(log_probs.sum(axis=2), cum_log_probs, rtol=1e-4)
        assert sorted(cum_log_probs[0], reverse=True) == cum_log_probs[0].tolist()

    def test_are_those_of_transformers(self, infer, tiny_reference):
        import torch

        model = tiny_reference("llama")
        best = model.generate(
            torch.tensor([PROMPT]),
            num_beams=3,
            num_return_sequences=3,
            max_new_tokens=MAX_TOKENS,
            do_sample=False,
            early_stopping=True,
            length_penalty=0.0,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert infer(beam_width=3).as_numpy("output_ids")[0].tolist() == best[:, len(PROMPT) :].tolist()

    def test_only_the_best_that_are_asked_for(self, infer):
        every = infer(beam_width=4).as_numpy("output_ids")
        assert infer(beam_width=4, num_return_sequences=2).as_numpy("output_ids").tolist() == every[:, :2].tolist()

    def test_each_begins_with_the_prompt_where_it_is_wanted(self, infer):
        generated = infer(beam_width=2).as_numpy("output_ids")
        whole = infer(beam_width=2, exclude_input_in_output=False).as_numpy("output_ids")
        assert whole[0, :, : len(PROMPT)].tolist() == [list(PROMPT)] * 2
        assert whole[:, :, len(PROMPT) :].tolist() == generated.tolist()

    def test_short_ones_are_padded(self, infer):
        """Every token of the first beam is an end id of some request; the one that ends a beam early pads it."""
        best = infer(beam_width=4).as_numpy("output_ids")[0]
        result = infer(beam_width=4, end_id=int(best[0, 4]))
        lengths = result.as_numpy("sequence_length")[0]
        ids = result.as_numpy("output_ids")[0]
        assert ids.shape == (4, lengths.max()) and lengths.min() < lengths.max()
        for beam, length in zip(ids, lengths, strict=True):
            assert (beam[:length] >= 0).all() and (beam[length:] == -1).all()


class TestLogits:
    @pytest.mark.parametrize(("model", "dtype"), [("coupled", np.float32), ("half_logits", np.float16)])
    def test_of_the_prompt_and_of_generated_tokens(self, infer, expected, model, dtype):
        result = infer(model, return_context_logits=True, return_generation_logits=True)
        context, generation = result.as_numpy("context_logits"), result.as_numpy("generation_logits")
        assert context.dtype == generation.dtype == dtype
        assert context.shape == (1, len(PROMPT), VOCAB_SIZE)
        assert generation.shape == (1, 1, MAX_TOKENS, VOCAB_SIZE)
        assert context[0, -1].argmax() == expected[0]
        assert generation[0, 0].argmax(axis=1).tolist() == expected

    def test_are_those_of_transformers(self, infer, expected, tiny_reference):
        import torch

        result = infer(return_context_logits=True, return_generation_logits=True)
        with torch.no_grad():
            logits = tiny_reference("llama")(torch.tensor([[*PROMPT, *expected]])).logits[0].numpy()
        np.testing.assert_allclose(result.as_numpy("context_logits")[0], logits[: len(PROMPT)], atol=2e-3)
        np.testing.assert_allclose(result.as_numpy("generation_logits")[0, 0], logits[len(PROMPT) - 1 : -1], atol=2e-3)

    def test_each_response_of_a_stream_has_those_of_its_tokens(self, grpc, expected):
        results = stream(grpc, request(PROMPT, MAX_TOKENS, end_id=-1, streaming=True, return_generation_logits=True))
        generation = [result.as_numpy("generation_logits") for result in results]
        rows = np.concatenate([rows[0, 0] for rows in generation if rows is not None])
        assert rows.argmax(axis=1).tolist() == expected


class TestDrafts:
    @pytest.mark.parametrize("wrong", [0, 3, 12])
    def test_do_not_change_what_is_generated(self, infer, expected, wrong):
        drafts = expected[:12]
        drafts[wrong:] = [(token + 1) % VOCAB_SIZE for token in drafts[wrong:]]
        assert tokens(infer(draft_input_ids=ints(*drafts), draft_acceptance_threshold=0.5)) == expected

    def test_from_the_sequences_own_text(self, infer, expected):
        assert tokens(infer("prompt_lookup")) == expected


class TestSampling:
    def test_bias_chooses_the_token(self, infer):
        bias = np.zeros((1, VOCAB_SIZE), np.float32)
        bias[0, 33] = 1e6
        assert tokens(infer(embedding_bias=bias)) == [33] * MAX_TOKENS

    def test_top_p_that_decays_ends_up_greedy(self, infer, expected):
        """From the second token on, only the likeliest is in the nucleus."""
        decayed = infer(runtime_top_p=1e-4, runtime_top_p_decay=0.5, runtime_top_p_min=1e-6, random_seed=seed(3))
        assert tokens(decayed) == expected
        free = {"runtime_top_p": 1.0, "temperature": 3.0, "random_seed": seed(3)}
        assert tokens(infer(**free)) != tokens(infer(runtime_top_p_decay=0.1, runtime_top_p_min=1e-6, **free))


class TestGuides:
    @pytest.fixture
    def text(self, infer, engine):
        from inflight.text import Tokenizer

        tokenizer = Tokenizer(engine / "tokenizer")

        def text(guide_type: str, guide: str = "", **others) -> str:
            tensors = {"guided_decoding_guide_type": strings(guide_type)}
            if guide:
                tensors["guided_decoding_guide"] = strings(guide)
            return tokenizer.decode(tokens(infer(**tensors, **{"end_id": 1, **others})))

        return text

    def test_choice(self, text):
        assert text("choice", '["the dog", "a fox"]') in ("the dog", "a fox")

    def test_regex(self, text):
        assert len(text("regex", "[0-9]{3}-[a-c]{2}")) == 6

    def test_grammar(self, text):
        assert text("ebnf_grammar", 'root ::= "fox " ("a" | "b") " dog"') in ("fox a dog", "fox b dog")

    def test_json_schema(self, text):
        assert json.loads(text("json_schema", '{"enum": ["fox", 22]}')) in ("fox", 22)

    def test_any_json(self, text):
        assert text("json").startswith("{")

    def test_guide_that_cannot_be_read_is_refused(self, text):
        with pytest.raises(httpclient.InferenceServerException, match="guided_decoding"):
            text("regex", "(unclosed")
