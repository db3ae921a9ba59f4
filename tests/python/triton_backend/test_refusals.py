"""What this version does not serve is refused by name; bad input says what was expected; the next request works."""

import queue

import http_client
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from requests_of_ids import request, stream, strings, tensors
from tritonclient.utils import InferenceServerException


@pytest.fixture(autouse=True)
def next_request_works(http):
    yield
    assert http.infer("coupled", tensors(httpclient, request())).as_numpy("output_ids") is not None


def refusal(http, arrays: dict, model: str = "coupled") -> str:
    with pytest.raises(InferenceServerException) as raised:
        http.infer(model, tensors(httpclient, arrays))
    return str(raised.value)


def ints(*values) -> np.ndarray:
    return np.array([values], np.int32)


UNSERVED = {
    "draft_logits": np.zeros((1, 1, 4), np.float32),
    "decoder_input_ids": ints(1, 2, 3),
    "prompt_embedding_table": np.zeros((1, 1, 4), np.float16),
    "lora_task_id": np.array([[1]], np.uint64),
    "lora_weights": np.zeros((1, 1, 4), np.float16),
    "lora_config": np.zeros((1, 1, 3), np.int32),
}


@pytest.mark.parametrize("name", UNSERVED)
def test_unserved_tensor_is_refused_by_name(http, name):
    message = refusal(http, request(**{name: UNSERVED[name]}))
    assert name in message and "this" in message


NO_EFFECT = {
    "beam_width": ints(1),
    "num_return_sequences": ints(1),
    "len_penalty": np.array([[1.0]], np.float32),
    "early_stopping": np.array([[True]]),
    "beam_search_diversity_rate": np.array([[0.0]], np.float32),
    "runtime_top_p_decay": np.array([[1.0]], np.float32),
    "runtime_top_p_min": np.array([[1e-6]], np.float32),
    "runtime_top_p_reset_ids": ints(-1),
    "embedding_bias": np.zeros((1, 0), np.float32),
    "return_context_logits": np.array([[False]]),
    "decoder_input_ids": ints(0),
    "decoder_input_lengths": ints(1),
    "draft_input_ids": np.zeros((1, 0), np.int32),
    "prompt_table_extra_ids": np.zeros((1, 3), np.uint64),
    "lora_weights": np.zeros((1, 0, 0), np.float16),
    "pad_id": ints(3),
    "stop": np.array([[False]]),
    "streaming": np.array([[False]]),
}


def test_tensors_that_ask_for_nothing_are_accepted(http):
    plain = http.infer("coupled", tensors(httpclient, request()))
    result = http.infer("coupled", tensors(httpclient, request(**NO_EFFECT)))
    assert result.as_numpy("output_ids").tolist() == plain.as_numpy("output_ids").tolist()


BAD = {
    "two lengths": ({"input_lengths": ints(3, 3)}, "input_lengths"),
    "length beyond the tokens": ({"input_lengths": ints(9)}, "input_lengths is 9; it must be 0 to 3"),
    "negative length": ({"input_lengths": ints(-1)}, "input_lengths is -1"),
    "no tokens": ({"input_ids": np.zeros((1, 0), np.int32), "input_lengths": ints(0)}, "input_ids is empty"),
    "offset beyond the tokens": (
        {"stop_words_list": np.array([[[5, 6], [9, -1]]], np.int32)},
        "stop_words_list has the offset 9 at position 0",
    ),
    "offsets that fall": (
        {"stop_words_list": np.array([[[5, 6], [2, 1]]], np.int32)},
        "stop_words_list has the offset 1 at position 1",
    ),
    "empty word": ({"bad_words_list": np.array([[[5, 6], [1, 1]]], np.int32)}, "bad_words_list has the offset 1"),
    "negative offset": ({"bad_words_list": np.array([[[5], [-7]]], np.int32)}, "bad_words_list has the offset -7"),
    "offset after padding": ({"bad_words_list": np.array([[[5, 6], [-1, 2]]], np.int32)}, "after a -1"),
    "streaming without decoupled": ({"streaming": np.array([[True]])}, "decoupled: true"),
    "stop without id": ({"stop": np.array([[True]])}, "the request has no id"),
    "prompt too long": ({"input_ids": np.full((1, 300), 5, np.int32), "input_lengths": ints(300)}, "at most 255"),
    "tokens outside the vocabulary": ({"input_ids": ints(5, 480, 7)}, "input_ids holds 480 at position 1"),
    "beams beyond the configuration's": ({"beam_width": ints(5)}, "beam_width is 5, but parameter max_beam_width of"),
    "sequences without decoupled": ({"num_return_sequences": ints(2)}, "num_return_sequences is 2"),
    "retention without ends": (
        {"retention_token_range_starts": ints(0), "retention_token_range_priorities": ints(50)},
        "retention_token_range_ends has 0 values, and retention_token_range_starts has 1",
    ),
    "durations of other ranges": (
        {
            "retention_token_range_starts": ints(0),
            "retention_token_range_ends": ints(-1),
            "retention_token_range_priorities": ints(50),
            "retention_token_range_durations_ms": ints(5, 6),
        },
        "retention_token_range_durations_ms has 2 values",
    ),
    "unknown guide": (
        {"guided_decoding_guide_type": strings("structural_tag"), "guided_decoding_guide": strings("{}")},
        'guided_decoding_guide_type is "structural_tag"; it must be json, json_schema, regex, ebnf_grammar or choice',
    ),
    "guide without a type": ({"guided_decoding_guide": strings("a+")}, "given without guided_decoding_guide_type"),
    "type without a guide": ({"guided_decoding_guide_type": strings("regex")}, "needs a guide"),
    "json with a guide": (
        {"guided_decoding_guide_type": strings("json"), "guided_decoding_guide": strings("{}")},
        "takes any JSON object",
    ),
    "NaN temperature": ({"temperature": np.array([[np.nan]], np.float32)}, "temperature is nan"),
}


@pytest.mark.parametrize(("changes", "expected"), BAD.values(), ids=BAD)
def test_bad_input_says_what_was_expected(http, changes, expected):
    assert expected in refusal(http, {**request(), **changes})


PARAMETERS = {
    "priority that is no number": ({"request_priority": "high"}, "request parameter request_priority must be a number"),
    "timeout that is no number": ({"timeout": True}, "timeout"),
    "negative timeout": ({"timeout": -5}, "timeout"),
}


@pytest.mark.parametrize(("parameters", "expected"), PARAMETERS.values(), ids=PARAMETERS)
def test_bad_request_parameters_are_refused(server, parameters, expected):
    """By the generate endpoint, which takes for a parameter what is no tensor."""
    scalars = {"input_ids": [5, 6, 7], "input_lengths": 3, "request_output_len": 2}
    answer = http_client.post(server.http_port, "/v2/models/coupled/generate", {**scalars, **parameters})
    assert answer.status == 400 and expected in answer.error


def test_a_shape_whose_size_wraps_around_is_refused(grpc):
    """4 · 2 · 2**61 elements are none in 64 bits, and none arrive."""
    batch = {name: np.concatenate([array] * 4) for name, array in request().items()}
    words = grpcclient.InferInput("stop_words_list", [4, 2, 2**61], "INT32")
    words._raw_content = b""
    answers = queue.SimpleQueue()
    grpc.start_stream(lambda result, error: answers.put(error))
    grpc.async_stream_infer("tensorrt_llm", [*tensors(grpcclient, batch), words])
    error = answers.get(timeout=60)
    grpc.stop_stream()
    assert "stop_words_list is INT32 [4,2,2305843009213693952], which is not a possible size" in str(error)


@pytest.mark.parametrize("content", [b"", b"\xff", b"\x09\x00\x00\x00json", b"\xff\xff\xff\xffjson"])
def test_a_string_that_ends_too_early_is_refused(grpc, content):
    guide_type = grpcclient.InferInput("guided_decoding_guide_type", [1, 1], "BYTES")
    guide_type._raw_content = content
    with pytest.raises(InferenceServerException, match="guided_decoding_guide_type"):
        grpc.infer("coupled", [*tensors(grpcclient, request()), guide_type])


def test_batch_needs_a_decoupled_model(http):
    arrays = {name: np.concatenate([array, array]) for name, array in request().items()}
    assert "a batch of 2 sequences" in refusal(http, arrays)


def test_full_queue_answers_at_once(grpc):
    """`short_queue` lets one request wait while eight run; all that it takes end."""
    answers = queue.SimpleQueue()
    grpc.start_stream(lambda result, error: answers.put(error))
    arrays = tensors(grpcclient, request(max_tokens=250, end_id=-1))
    for _ in range(64):
        grpc.async_stream_infer("short_queue", arrays)
    errors = [str(error) for error in (answers.get(timeout=60) for _ in range(64)) if error is not None]
    grpc.stop_stream()
    assert 0 < len(errors) < 64
    assert all("queue" in error for error in errors)  # this backend's, or Triton's of the same length before it


def test_sequences_count_in_the_queue(grpc):
    """`short_queue` runs eight sequences and lets one wait."""
    with pytest.raises(InferenceServerException, match="the queue is full"):
        stream(grpc, request(num_return_sequences=1000), model="short_queue")


def test_more_logits_than_there_is_memory_for_are_refused(grpc):
    """The engine has memory for those of one sequence of 256 tokens."""
    arrays = request(max_tokens=253, return_generation_logits=True, num_return_sequences=2, streaming=True)
    with pytest.raises(InferenceServerException, match="rebuild with a larger --logits-memory"):
        stream(grpc, arrays)
