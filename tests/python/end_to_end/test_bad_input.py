"""Bad input over HTTP: an error that says what to change, and the next request works."""

import re

import grpc_client
import http_client
import pytest
from tritonclient.utils import InferenceServerException

MODELS = ["ensemble", "tensorrt_llm_bls"]
GOOD = {"text_input": "a b c", "max_tokens": 4}
GOOD_IDS = {
    "input_ids": ("INT32", [1, 3], [5, 6, 7]),
    "input_lengths": ("INT32", [1, 1], [3]),
    "request_output_len": ("INT32", [1, 1], [4]),
}
LEFT_OUT = object()


@pytest.fixture(autouse=True)
def next_request_works(tiny_server):
    yield
    assert http_client.generate(tiny_server.http_port, GOOD)["text_output"]


# What changes in GOOD, and what the error has to name.
TEXT_CASES = {
    "no prompt": ({"text_input": LEFT_OUT}, "text_input"),
    "no max_tokens": ({"max_tokens": LEFT_OUT}, "max_tokens"),
    "number as prompt": ({"text_input": 5}, "non-string as string"),  # these four are Triton's own words
    "text as max_tokens": ({"max_tokens": "many"}, "non-signed-integer as signed-integer"),
    "text as temperature": ({"temperature": "hot"}, "non-number as double"),
    "object as prompt": ({"text_input": {"text": "a"}}, "non-string as string"),
    "two prompts": ({"text_input": ["a", "b"]}, "text_input"),
    "empty prompt": ({"text_input": ""}, "empty"),
    "prompt longer than the engine takes": ({"text_input": "a b " * 500}, "at most 127"),
    "max_tokens 0": ({"max_tokens": 0}, "max_tokens"),
    "negative max_tokens": ({"max_tokens": -5}, "max_tokens"),
    "max_tokens beyond INT32": ({"max_tokens": 2**40}, "max_tokens"),
    "negative temperature": ({"temperature": -1.0}, "temperature"),
    "top_p above 1": ({"top_p": 1.5}, "top_p"),
    "top_p below 0": ({"top_p": -0.5}, "top_p"),
    "negative top_k": ({"top_k": -2}, "top_k"),
    "repetition_penalty 0": ({"repetition_penalty": 0.0}, "repetition_penalty"),
    "end_id outside the vocabulary": ({"end_id": 100000}, "end_id"),
    "more beams than the engine's": ({"beam_width": 99}, "beam_width"),
    "more sequences than beams": ({"beam_width": 2, "num_return_sequences": 3}, "num_return_sequences"),
    "more words than are taken": ({"stop_words": ["a"] * 9000}, "stop_words has 9000 words; at most 8192"),
    "words longer than are taken": ({"bad_words": ["ab" * 40000]}, "the words of bad_words have 80000 bytes together"),
    "LoRA adapter": ({"lora_task_id": 1}, "lora_task_id"),
    "generation logits of beams": ({"beam_width": 2, "return_generation_logits": True}, "return_generation_logits"),
    "guide that cannot be read": (
        {"guided_decoding_guide_type": "regex", "guided_decoding_guide": "((("},
        "guided_decoding: regex",
    ),
    "priority above 1": ({"request_priority": 7}, "priority is 7"),
    "misspelled field": ({"temprature": 0.5}, '"temprature"; did you mean temperature?'),
    "misspelled max_tokens": (
        {"max_tokens": LEFT_OUT, "max_token": 4},
        '"max_token" is unknown; did you mean max_tokens?',
    ),
    "misspelled prompt": (
        {"text_input": LEFT_OUT, "text_imput": "a"},
        '"text_imput" is unknown; did you mean text_input?',
    ),
    "both misspelled": (  # with no input for preprocessing at all, Triton answers before it is asked
        {"text_input": LEFT_OUT, "text-input": "a", "max_tokens": LEFT_OUT, "maxTokens": 4, "bad_words": ""},
        '"text-input" is unknown; did you mean text_input?',
    ),
    "misspelled parameter": ({"parameters": {"repitition_penalty": 1.5}}, "did you mean repetition_penalty?"),
    "name of another model's input": ({"runtime_top_k": 5}, '"runtime_top_k" is no input of the model that was asked'),
    "misspelled timeout": ({"time_out": 1000000}, "did you mean timeout?"),
}


def with_changes(good: dict, changes: dict) -> dict:
    return {name: value for name, value in {**good, **changes}.items() if value is not LEFT_OUT}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("changes", "named"), TEXT_CASES.values(), ids=TEXT_CASES)
def test_text_request(changes, named, model, tiny_server):
    answer = http_client.post(tiny_server.http_port, f"/v2/models/{model}/generate", with_changes(GOOD, changes))
    assert 400 <= answer.status < 600
    assert named in answer.error


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("changes", "named"), TEXT_CASES.values(), ids=TEXT_CASES)
def test_text_request_in_a_stream(changes, named, model, tiny_server):
    """A stream's errors come with its status, or, once it has begun, as its only event."""
    answer = http_client.post_stream(
        tiny_server.http_port, f"/v2/models/{model}/generate_stream", {**with_changes(GOOD, changes), "stream": True}
    )
    assert named in answer.error


@pytest.mark.parametrize(
    ("field", "meant"), [("input_lenght", "input_lengths"), ("request_ouput_len", "request_output_len")]
)
def test_misspelled_field_that_tensorrt_llm_needs(field, meant, tiny_server):
    request = {"input_ids": [5, 6, 7], "input_lengths": 3, "request_output_len": 4}
    request[field] = request.pop(meant)
    answer = http_client.post(tiny_server.http_port, "/v2/models/tensorrt_llm/generate", request)
    assert answer.status == 400 and f'"{field}"; did you mean {meant}?' in answer.error


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("sent", "parameters", "named"),
    [
        ({"text_input": "a"}, {"max_token": 4}, '"max_token" is unknown; did you mean max_tokens?'),
        ({"text_input": "a"}, {"max_tokens": 4}, "it was sent as a request parameter, send it as an input"),
        ({"max_tokens": 4}, {"text_inputs": "a"}, '"text_inputs" is unknown; did you mean text_input?'),
        ({"text_input": "a", "max_tokens": 4}, {"temprature": 0.5}, '"temprature"; did you mean temperature?'),
    ],
)
def test_misspelled_parameter_over_grpc(sent, parameters, named, model, tiny_server):
    with grpc_client.Stream(tiny_server.grpc_port, sent, model, parameters=parameters) as stream:
        with pytest.raises(InferenceServerException, match=re.escape(named)):
            list(stream.texts())


def test_a_field_that_resembles_none_is_ignored_and_logged_once(tiny_server):
    request = {**GOOD, "favorite_color": "blue"}
    answers = {http_client.generate(tiny_server.http_port, request)["text_output"] for _ in range(3)}
    assert answers == {http_client.generate(tiny_server.http_port, GOOD)["text_output"]}
    assert tiny_server.log_file.read_text().count('"favorite_color\\" is not known') == 1


ID_CASES = {
    "no input_ids": ({"input_ids": LEFT_OUT}, "input_ids"),
    "no input_lengths": ({"input_lengths": LEFT_OUT}, "input_lengths"),
    "no request_output_len": ({"request_output_len": LEFT_OUT}, "request_output_len"),
    "input_ids of floats": ({"input_ids": ("FP32", [1, 3], [5.0, 6.0, 7.0])}, "input_ids"),
    "no token": ({"input_ids": ("INT32", [1, 0], []), "input_lengths": ("INT32", [1, 1], [0])}, "input_ids"),
    "length beyond the tokens": ({"input_lengths": ("INT32", [1, 1], [9])}, "input_lengths"),
    "negative length": ({"input_lengths": ("INT32", [1, 1], [-1])}, "input_lengths"),
    "token beyond the vocabulary": ({"input_ids": ("INT32", [1, 3], [5, 480, 7])}, "480"),
    "negative token": ({"input_ids": ("INT32", [1, 3], [5, -3, 7])}, "-3"),
    "stop word beyond its tokens": ({"stop_words_list": ("INT32", [1, 2, 2], [5, 6, 9, -1])}, "stop_words_list"),
    "stop words that go backwards": ({"stop_words_list": ("INT32", [1, 2, 2], [5, 6, 2, 1])}, "stop_words_list"),
    "stop words of three rows": ({"stop_words_list": ("INT32", [1, 3, 1], [5, 1, 1])}, "stop_words_list"),
    "stop word outside the vocabulary": ({"stop_words_list": ("INT32", [1, 2, 1], [9999, 1])}, "9999"),
    "bad word that ends before it begins": ({"bad_words_list": ("INT32", [1, 2, 1], [5, -7])}, "bad_words_list"),
    "unknown tensor": ({"speed": ("FP32", [1, 1], [1.0])}, "speed"),
}


@pytest.fixture(scope="module")
def infer_server(tiny_server_engine, make_repository):
    """Triton offers the infer protocol over HTTP to models that are not decoupled."""
    from inflight.launcher.server import TritonServer

    with TritonServer(make_repository(tiny_server_engine, decoupled_mode="false")) as server:
        yield server


@pytest.mark.parametrize(("changes", "named"), ID_CASES.values(), ids=ID_CASES)
def test_request_of_ids(changes, named, infer_server):
    answer = http_client.infer(infer_server.http_port, "tensorrt_llm", with_changes(GOOD_IDS, changes))
    assert 400 <= answer.status < 600
    assert named in answer.error
    assert http_client.infer(infer_server.http_port, "tensorrt_llm", GOOD_IDS).status == 200


BODIES = {
    "not JSON": (b"text_input=hello", "JSON"),
    "cut JSON": (b'{"text_input": "a", "max_tok', "JSON"),
    "a list": (b"[1, 2]", ""),
    "nothing": (b"", ""),
    "invalid UTF-8": (b'{"text_input": "\xff\xfe caf\xe9", "max_tokens": 4}', "UTF-8"),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("body", "named"), BODIES.values(), ids=BODIES)
def test_body(body, named, model, tiny_server):
    answer = http_client.post(tiny_server.http_port, f"/v2/models/{model}/generate", body)
    assert 400 <= answer.status < 600
    assert named.lower() in answer.error.lower()


def test_unknown_model(tiny_server):
    assert "llama" in http_client.post(tiny_server.http_port, "/v2/models/llama/generate", GOOD).error
