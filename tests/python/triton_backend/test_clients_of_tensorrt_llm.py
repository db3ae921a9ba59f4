"""What clients and repositories of TensorRT-LLM, from 0.5 on, send to tensorrt_llm, and read of its answers."""

import http_client
import numpy as np
import pytest
import tritonclient.http as httpclient
from greedy import greedy_tokens
from old_repositories import UNSIGNED
from requests_of_ids import request, stream, tensors
from tritonclient.utils import InferenceServerException

PROMPT = (5, 6, 7, 200)
MAX_TOKENS = 24
VOCAB_SIZE = 480
END_ID = 1  # the engine's own


@pytest.fixture(scope="module")
def expected(engine) -> list[int]:
    """The tokens that follow PROMPT; none is an end id."""
    return greedy_tokens(engine, [list(PROMPT)], MAX_TOKENS)[0]


def arrays(max_tokens: int = MAX_TOKENS, **others) -> dict[str, np.ndarray]:
    return request(PROMPT, max_tokens, **{"end_id": -1, "exclude_input_in_output": True, **others})


def infer(http, model: str = "coupled", **others):
    return http.infer(model, tensors(httpclient, arrays(**others)))


def tokens(result) -> list[int]:
    return result.as_numpy("output_ids")[0, 0].tolist()


def favor(token: int) -> np.ndarray:
    """An embedding bias that leaves no other token."""
    bias = np.zeros((1, VOCAB_SIZE), np.float32)
    bias[0, token] = 1e6
    return bias


class TestVersion06:
    """The repository's types are those of 0.5 and 0.6, and its ensembles ask for every output."""

    @pytest.fixture
    def responses(self, grpc):
        def responses(**others) -> list:
            unsigned = {"request_output_len": 4, "runtime_top_k": 1, "beam_width": 1, "end_id": 479, **others}
            inputs = request(PROMPT)
            for name, value in unsigned.items():
                inputs[name] = np.array([[value]], np.uint32 if name in UNSIGNED["tensorrt_llm"] else np.bool_)
            return stream(grpc, inputs, model="version_0_6")

        return responses

    def test_integers_without_a_sign(self, responses, expected):
        assert [tokens(result) for result in responses()] == [expected[:4]]

    @pytest.mark.parametrize("name", ["request_output_len", "runtime_top_k", "end_id"])
    def test_one_beyond_int32_is_refused(self, responses, name):
        with pytest.raises(InferenceServerException, match=f"{name} is 4294967295; it must be at most 2147483647"):
            responses(**{name: 2**32 - 1})

    @pytest.mark.parametrize("streaming", [False, True])
    def test_outputs_that_are_not_asked_for_are_zeros(self, responses, streaming):
        for result in responses(streaming=streaming):
            count = len(tokens(result))
            shapes = {"cum_log_probs": (1, 1), "output_log_probs": (1, 1, max(count, 1))}
            shapes |= {"context_logits": (1, 1, 1), "generation_logits": (1, 1, 1, 1)}
            for name, shape in shapes.items():
                assert result.as_numpy(name).shape == shape and not result.as_numpy(name).any(), name

    def test_outputs_that_are_asked_for_are_not(self, responses):
        (result,) = responses(return_log_probs=True, return_context_logits=True, return_generation_logits=True)
        assert (result.as_numpy("output_log_probs") < 0).all() and (result.as_numpy("cum_log_probs") < 0).all()
        assert result.as_numpy("context_logits").shape == (1, len(PROMPT), VOCAB_SIZE)
        assert result.as_numpy("generation_logits").shape == (1, 1, 4, VOCAB_SIZE)

    def test_an_input_that_nobody_reads_is_ignored_and_logged_once(self, server, grpc, expected):
        inputs = {**request(PROMPT), "CORRID": np.array([[7]], np.uint64)}
        inputs["request_output_len"] = np.array([[4]], np.uint32)
        for _ in range(3):
            assert tokens(stream(grpc, inputs, model="version_0_6")[0]) == expected[:4]
        assert server.log_file.read_text().count('input \\"CORRID\\" is not known') == 1


FLAGS = {"return_log_probs": True, "return_context_logits": True, "return_generation_logits": True}


class TestStreams:
    """A client keeps the last response, and finds in it what all of them have said."""

    @pytest.fixture
    def whole(self, http):
        return infer(http, **FLAGS)

    @pytest.mark.parametrize("num_sequences", [1, 2])
    def test_every_response_has_all_log_probs_so_far(self, grpc, whole, num_sequences):
        seen = {index: 0 for index in range(num_sequences)}
        inputs = arrays(streaming=True, return_log_probs=True, num_return_sequences=num_sequences)
        for result in stream(grpc, inputs):
            index = result.as_numpy("sequence_index").item()
            seen[index] += len(tokens(result))
            log_probs = result.as_numpy("output_log_probs")
            assert log_probs.shape == (1, 1, seen[index])
            np.testing.assert_allclose(log_probs, whole.as_numpy("output_log_probs")[:, :, : seen[index]], rtol=1e-4)
            np.testing.assert_allclose(result.as_numpy("cum_log_probs"), log_probs.sum(axis=2), rtol=1e-4)
        assert set(seen.values()) == {MAX_TOKENS}

    def test_every_response_has_the_context_logits(self, grpc, whole):
        for result in stream(grpc, arrays(streaming=True, **FLAGS)):
            assert np.array_equal(result.as_numpy("context_logits"), whole.as_numpy("context_logits"))

    def test_a_response_without_tokens_has_generation_logits_of_none(self, http):
        result = infer(http, end_id=END_ID, embedding_bias=favor(END_ID), **FLAGS)
        assert result.as_numpy("output_ids").shape == (1, 1, 0)
        assert result.as_numpy("generation_logits").shape == (1, 1, 0, VOCAB_SIZE)

    def test_each_response_has_the_beams_as_they_are(self, grpc, http):
        results = stream(grpc, arrays(streaming=True, return_log_probs=True, beam_width=3), model="unpaced")
        best = infer(http, beam_width=3, return_log_probs=True)
        for name in ("output_ids", "output_log_probs", "cum_log_probs", "sequence_length"):
            assert results[-1].as_numpy(name).tolist() == best.as_numpy(name).tolist()
        lengths = [result.as_numpy("sequence_length").tolist() for result in results]
        assert lengths == sorted(lengths) and len(lengths[0][0]) == 3
        for result in results:
            assert result.as_numpy("output_log_probs").shape == result.as_numpy("output_ids").shape
            assert result.as_numpy("preceding_ids").tolist() == [[-1] * 16]
        finished = [result.as_numpy("sequence_finished").item() for result in results]
        assert finished == [False] * (len(results) - 1) + [True]


class TestPerfMetrics:
    TIMES = ("arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "last_token_time_ns")
    COUNTS = ("kv_cache_alloc_new_blocks", "kv_cache_reused_blocks", "kv_cache_alloc_total_blocks",
              "total_accepted_draft_tokens", "total_draft_tokens")  # fmt: skip

    def test_every_response_has_them(self, grpc):
        results = stream(grpc, arrays(streaming=True, return_perf_metrics=True), model="unpaced")
        times = [[result.as_numpy(name)[0][0] for name in self.TIMES] for result in results]
        assert all(0 < row[0] and row == sorted(row) for row in times)
        assert len({tuple(row[:3]) for row in times}) == 1 and times == sorted(times)
        assert results[0].as_numpy("arrival_time_ns").dtype == np.int64
        for result in results:
            new, reused, total, accepted, drafts = (result.as_numpy(name)[0][0] for name in self.COUNTS)
            assert new + reused == total > 0 and accepted == drafts == 0
            assert result.as_numpy("acceptance_rate").tolist() == [[0.0]]

    def test_of_drafts(self, http, expected):
        drafts = np.array([[*expected[:2], (expected[2] + 1) % VOCAB_SIZE]], np.int32)
        result = infer(http, draft_input_ids=drafts, return_perf_metrics=True)
        assert [result.as_numpy(name).item() for name in self.COUNTS[3:]] == [2, 3]
        assert result.as_numpy("acceptance_rate").item() == pytest.approx(2 / 3)

    def test_only_when_asked_for(self, http):
        result = infer(http, return_perf_metrics=False)
        names = (*self.TIMES, *self.COUNTS, "acceptance_rate", "num_input_tokens", "num_output_tokens")
        assert [name for name in names if result.as_numpy(name) is not None] == []


def test_numbers_of_tokens_when_asked_for(http, grpc):
    flags = {"return_num_input_tokens": True, "return_num_output_tokens": True}
    for exclude in (False, True):
        result = infer(http, exclude_input_in_output=exclude, **flags)
        assert result.as_numpy("num_input_tokens").tolist() == [[len(PROMPT)]]
        assert result.as_numpy("num_output_tokens").tolist() == [[MAX_TOKENS]]
    results = stream(grpc, arrays(streaming=True, **flags))
    assert [result.as_numpy("num_input_tokens").item() for result in results] == [len(PROMPT)] * len(results)
    assert sum(result.as_numpy("num_output_tokens").item() for result in results) == MAX_TOKENS


RENAMED = {
    "random_seed": ("seed", np.array([[7]], np.uint64), {"temperature": 1.5, "runtime_top_k": 50}),
    "min_length": ("min_tokens", np.array([[5]], np.int32), {"end_id": END_ID, "embedding_bias": favor(END_ID)}),
}


@pytest.mark.parametrize(("name", "other", "value", "others"), [(name, *rest) for name, rest in RENAMED.items()])
def test_a_renamed_input_is_served_under_both_names(http, name, other, value, others):
    plain, old, new = (infer(http, **named, **others) for named in ({}, {name: value}, {other: value}))
    assert tokens(old) == tokens(new) != tokens(plain)
    assert tokens(infer(http, **{name: value, other: value}, **others)) == tokens(old)
    with pytest.raises(InferenceServerException, match=f"{name} is [57], and {other}, its other name, is [68]"):
        infer(http, **{name: value, other: value + np.ones_like(value)}, **others)


def test_lookahead_inputs_change_nothing(http, expected):
    lookahead = {"lookahead_window_size": 7, "lookahead_ngram_size": 5, "lookahead_verification_set_size": 3}
    assert tokens(infer(http, **lookahead)) == tokens(infer(http, "prompt_lookup", **lookahead)) == expected


def test_more_tokens_than_there_is_room_for_are_fewer_and_a_warning(http, server, expected):
    result = tokens(infer(http, max_tokens=5000))
    assert len(result) == 256 - len(PROMPT) and result[:MAX_TOKENS] == expected
    warning = f"request_output_len (max_tokens) is 5000, and input_ids has {len(PROMPT)} tokens"
    assert warning in server.log_file.read_text()


def test_a_parameter_that_clients_send_beside_the_input_streaming_has_no_effect(http, expected):
    result = http.infer("coupled", tensors(httpclient, arrays()), parameters={"Streaming": False})
    assert tokens(result) == expected


@pytest.mark.parametrize("request_type", ["context_only", "generation_only", "both", 3])
def test_a_request_type_of_disaggregated_serving_is_refused(server, request_type):
    answer = generate(server, request_type=request_type)
    assert answer.status >= 400 and "request parameter request_type" in answer.error


def test_the_request_type_that_is_served(server):
    assert generate(server, request_type="context_and_generation").status == 200


def generate(server, **parameters) -> http_client.Answer:
    scalars = {"input_ids": [5, 6, 7], "input_lengths": 3, "request_output_len": 2}
    return http_client.post(server.http_port, "/v2/models/coupled/generate", {**scalars, **parameters})
