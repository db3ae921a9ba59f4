"""What the model tensorrt_llm answers, over HTTP and gRPC, decoupled and not."""

import time

import numpy as np
import prometheus
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from greedy import greedy_tokens
from requests_of_ids import request, stream, tensors
from tritonclient.utils import InferenceServerException

PROMPT = (5, 6, 7, 200)
MAX_TOKENS = 24


@pytest.fixture(scope="module")
def expected(engine) -> list[int]:
    """The tokens that follow PROMPT; none is an end id."""
    return greedy_tokens(engine, [list(PROMPT)], MAX_TOKENS)[0]


def never_ends(**others) -> dict:
    return request(PROMPT, MAX_TOKENS, end_id=-1, **others)


@pytest.mark.parametrize("model", ["coupled", "upstream_name"])
def test_http_answer_is_prompt_and_generated_tokens(http, model, expected):
    result = http.infer(model, tensors(httpclient, never_ends()))
    assert result.as_numpy("output_ids").tolist() == [[[*PROMPT, *expected]]]
    assert result.as_numpy("sequence_length").tolist() == [[len(PROMPT) + MAX_TOKENS]]


def test_grpc_answer_without_the_prompt(grpc, expected):
    result = grpc.infer("coupled", tensors(grpcclient, never_ends(exclude_input_in_output=True)))
    assert result.as_numpy("output_ids").tolist() == [[expected]]
    assert result.as_numpy("sequence_length").tolist() == [[MAX_TOKENS]]


def test_all_outputs_of_a_request_that_is_not_streamed(http):
    result = http.infer("coupled", tensors(httpclient, never_ends()))
    for name in ("batch_index", "sequence_index"):
        assert result.as_numpy(name).tolist() == [[0]]
    assert result.as_numpy("preceding_ids").tolist() == [[-1] * 16]
    assert result.as_numpy("sequence_finished").tolist() == [[True]]
    for name in ("cum_log_probs", "output_log_probs", "context_logits", "generation_logits", "kv_cache_reused_blocks"):
        assert result.as_numpy(name) is None


def test_only_the_outputs_that_are_asked_for(http):
    outputs = [httpclient.InferRequestedOutput("sequence_length")]
    result = http.infer("coupled", tensors(httpclient, never_ends()), outputs=outputs)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["sequence_length"]


def test_log_probs_when_asked_for(http):
    result = http.infer("coupled", tensors(httpclient, never_ends(return_log_probs=True)))
    log_probs = result.as_numpy("output_log_probs")
    assert log_probs.shape == (1, 1, MAX_TOKENS) and (log_probs <= 0).all()
    np.testing.assert_allclose(result.as_numpy("cum_log_probs"), [[log_probs.sum()]], rtol=1e-5)


def test_streamed_tokens_join_to_the_whole_and_know_what_precedes_them(grpc, expected):
    results = stream(grpc, never_ends(streaming=True))
    tokens = []
    for result in results:
        preceding = ([-1] * 16 + tokens)[-16:]
        assert result.as_numpy("preceding_ids").tolist() == [preceding]
        tokens += result.as_numpy("output_ids")[0, 0].tolist()
        assert result.as_numpy("sequence_length").tolist() == [[result.as_numpy("output_ids").size]]
    assert tokens == expected
    assert [result.as_numpy("sequence_finished").item() for result in results] == [False] * (len(results) - 1) + [True]


def test_decoupled_model_answers_once_without_streaming(grpc, expected):
    (result,) = stream(grpc, never_ends())
    assert result.as_numpy("output_ids").tolist() == [[[*PROMPT, *expected]]]


def test_end_id_ends_the_sequence_and_is_not_part_of_it(http, expected):
    end = expected[5]
    result = http.infer(
        "coupled", tensors(httpclient, request(PROMPT, MAX_TOKENS, end_id=end, exclude_input_in_output=True))
    )
    assert result.as_numpy("output_ids")[0, 0].tolist() == expected[: expected.index(end)]


def word_list(*words: list[int]) -> np.ndarray:
    """[1, 2, n], padded by one."""
    tokens = [token for word in words for token in word]
    ends = np.cumsum([len(word) for word in words]).tolist()
    return np.array([[tokens + [0], ends + [-1] * (len(tokens) + 1 - len(ends))]], np.int32)


def test_stop_word_ends_the_sequence_and_is_part_of_it(http, expected):
    words = word_list([479, 478], expected[3:5])
    result = http.infer("coupled", tensors(httpclient, never_ends(exclude_input_in_output=True, stop_words_list=words)))
    assert result.as_numpy("output_ids")[0, 0].tolist() == expected[:5]


def test_bad_word_never_comes(http, expected):
    result = http.infer("coupled", tensors(httpclient, never_ends(bad_words_list=word_list(expected[:1]))))
    assert expected[0] not in result.as_numpy("output_ids")[0, 0, len(PROMPT) :]


def test_empty_word_lists_mean_none(http, expected):
    empty = np.array([[[0], [-1]]], np.int32)
    arrays = never_ends(
        stop_words_list=empty, bad_words_list=np.zeros((1, 2, 0), np.int32), exclude_input_in_output=True
    )
    assert http.infer("coupled", tensors(httpclient, arrays)).as_numpy("output_ids").tolist() == [[expected]]


def test_input_lengths_cuts_padding_off(http, expected):
    arrays = never_ends(exclude_input_in_output=True)
    arrays["input_ids"] = np.array([[*PROMPT, 0, 0]], np.int32)
    assert http.infer("coupled", tensors(httpclient, arrays)).as_numpy("output_ids").tolist() == [[expected]]


def test_same_seed_same_tokens(http):
    def tokens(seed: int) -> list[int]:
        sampling = {"runtime_top_k": 50, "runtime_top_p": 0.95, "temperature": 1.5, "repetition_penalty": 1.1}
        arrays = never_ends(random_seed=np.array([[seed]], np.uint64), **sampling)
        return http.infer("coupled", tensors(httpclient, arrays)).as_numpy("output_ids").tolist()

    assert tokens(7) == tokens(7) != tokens(8)


def test_batch_of_sequences_is_split(grpc, engine):
    prompts = [[5, 6, 7], [9, 8]]
    arrays = {
        "input_ids": np.array([[5, 6, 7], [9, 8, 0]], np.int32),
        "input_lengths": np.array([[3], [2]], np.int32),
        "request_output_len": np.array([[4], [6]], np.int32),
        "end_id": np.array([[-1], [-1]], np.int32),
    }
    results = stream(grpc, arrays)
    found = {result.as_numpy("batch_index").item(): result.as_numpy("output_ids")[0, 0].tolist() for result in results}
    expected = greedy_tokens(engine, prompts, 6)
    assert found == {0: prompts[0] + expected[0][:4], 1: prompts[1] + expected[1]}


def test_one_bad_sequence_ends_its_batch(grpc):
    arrays = {
        "input_ids": np.array([[5, 6, 7], [9, 8, 7]], np.int32),
        "input_lengths": np.array([[3], [3]], np.int32),
        "request_output_len": np.array([[100], [0]], np.int32),
    }
    with pytest.raises(InferenceServerException, match="request_output_len"):
        stream(grpc, arrays)


def test_model_without_batch_dimension(grpc, expected):
    arrays = {name: array[0] for name, array in never_ends().items()}
    (result,) = stream(grpc, arrays, model="unbatched")
    assert result.as_numpy("output_ids").tolist() == [[*PROMPT, *expected]]
    assert result.as_numpy("sequence_length").tolist() == [len(PROMPT) + MAX_TOKENS]


REFUSED = {
    "by the reader": request(PROMPT, lora_task_id=np.array([[1]], np.uint64)),
    "by the batch manager": request(PROMPT, max_tokens=0),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_statistics_count_requests(http, refused):
    def counts() -> tuple[int, int]:
        statistics = http.get_inference_statistics("coupled")["model_stats"][0]
        return statistics["inference_stats"]["success"]["count"], statistics["inference_stats"]["fail"]["count"]

    success, fail = counts()
    http.infer("coupled", tensors(httpclient, never_ends()))
    with pytest.raises(InferenceServerException):
        http.infer("coupled", tensors(httpclient, refused))
    deadline = time.monotonic() + 30  # a refusal is counted just after it is sent
    while counts() != (success + 1, fail + 1) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert counts() == (success + 1, fail + 1)


def test_statistics_time_the_first_and_the_last_response_of_a_stream(http, grpc):
    def counts() -> dict[str, tuple[int, int]]:
        responses = http.get_inference_statistics("unpaced")["model_stats"][0].get("response_stats", {})
        return {index: (found["success"]["count"], found["compute_infer"]["ns"]) for index, found in responses.items()}

    before = {"0": (0, 0), "1": (0, 0), **counts()}
    assert len(stream(grpc, request(PROMPT, 200, end_id=-1, streaming=True), model="unpaced")) > 1
    prometheus.wait_for(lambda: counts().get("1", (0, 0))[0] == before["1"][0] + 1)
    after = counts()
    assert set(after) == {"0", "1"} and after["0"][0] == before["0"][0] + 1
    assert all(after[index][1] > before[index][1] for index in after)


def test_statistics_count_cancelled_requests(http, grpc):
    def cancelled() -> int:
        responses = http.get_inference_statistics("tensorrt_llm")["model_stats"][0].get("response_stats", {})
        return sum(found["cancel"]["count"] for found in responses.values())

    before = cancelled()
    arrays = tensors(grpcclient, request(PROMPT, 240, end_id=-1))
    grpc.start_stream(lambda result, error: None)
    for number in range(100):
        grpc.async_stream_infer("tensorrt_llm", arrays, request_id=str(number))
    stop = tensors(grpcclient, request(stop=True))
    grpc.async_stream_infer("tensorrt_llm", stop, request_id="99")
    prometheus.wait_for(lambda: cancelled() == before + 1)
    grpc.stop_stream()
