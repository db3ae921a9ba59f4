"""Pre- and postprocessing in Triton's python backend, alone and in both ensembles."""

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import http_client
import pytest

pytestmark = pytest.mark.skipif(find_spec("pytriton") is None, reason="nvidia-pytriton is not installed")

ENSEMBLES = ["ensemble", "tensorrt_llm_bls"]
TEXT = "  Leading spaces, 机器学习 🎉👩‍👩‍👧‍👦 é, <think> and an end."


@pytest.mark.parametrize("model", ENSEMBLES)
def test_text_passes_through_whole_and_streamed(echo_server, model):
    request = {"text_input": TEXT, "max_tokens": 1000}
    assert http_client.generate(echo_server.http_port, request, model)["text_output"] == TEXT
    assert http_client.streamed_text(echo_server.http_port, request, model) == TEXT


@pytest.mark.parametrize("model", ENSEMBLES)
def test_a_character_that_is_cut_off_becomes_a_replacement_character(echo_server, model):
    request = {"text_input": "机器", "max_tokens": 5}
    assert http_client.generate(echo_server.http_port, request, model)["text_output"] == "机\ufffd"
    assert http_client.streamed_text(echo_server.http_port, request, model) == "机\ufffd"


@pytest.mark.parametrize("model", ENSEMBLES)
def test_concurrent_streams_keep_their_texts_and_their_order(echo_server, model):
    def stream(index):
        text = f"{index}: {TEXT * (1 + index % 3)}"
        return http_client.streamed_text(echo_server.http_port, {"text_input": text, "max_tokens": 1000}, model) == text

    with ThreadPoolExecutor(24) as threads:
        assert all(threads.map(stream, range(48)))


@pytest.mark.parametrize("model", ENSEMBLES)
@pytest.mark.parametrize(
    "request_, message",
    [
        ({"text_input": "", "max_tokens": 5}, "the prompt (text_input, QUERY) is empty; send at least one character"),
        (b'{"text_input": "a\xff", "max_tokens": 5}', "is not valid UTF-8: invalid start byte at byte 1"),
        (b'{"text_input": "a", "max_tokens": 5, "stop_words": ["\xe4"]}', "STOP_WORDS_DICT is not valid UTF-8"),
        ({"text_input": "a", "max_tokens": 5, "embedding_bias_words": ["a"], "embedding_bias_weights": [1.0, 2.0]},
         "got 1 words and 2 weights"),
        ({"text_input": "a", "max_tokens": 5, "decoder_text_input": "b"}, "decoder_text_input is set"),
        ({"text_input": "a", "max_tokens": 5, "prompt_table_extra_id": 9}, "prompt_table_extra_id is set"),
        ({"text_input": "a"}, "max_tokens"),
    ],
)  # fmt: skip
def test_bad_input_is_an_error_of_that_request_only(echo_server, model, request_, message):
    with ThreadPoolExecutor(8) as threads:
        good = [
            threads.submit(http_client.generate, echo_server.http_port, {"text_input": TEXT, "max_tokens": 99}, model)
            for _ in range(4)
        ]
        answer = http_client.post(echo_server.http_port, f"/v2/models/{model}/generate", request_)
        assert answer.status == 400 and message in answer.error, answer
        assert all(future.result()["text_output"] == TEXT for future in good)


@pytest.mark.parametrize("name, value", [("use_draft_logits", True), ("image_url_input", "http://host/cat.png")])
def test_what_the_scripted_model_had_and_this_one_has_not_is_refused_by_name(echo_server, name, value):
    request = {"text_input": "a", "max_tokens": 5, name: value}
    answer = http_client.post(echo_server.http_port, "/v2/models/tensorrt_llm_bls/generate", request)
    assert answer.status == 400 and f"{name} is set, but this version does not serve" in answer.error


def test_preprocessing_takes_batches(echo_server):
    answer = http_client.infer(
        echo_server.http_port,
        "preprocessing",
        {"QUERY": ("BYTES", [2, 1], ["a", "abc"]), "REQUEST_OUTPUT_LEN": ("INT32", [2, 1], [3, 4])},
    )
    outputs = {output["name"]: output for output in answer.body["outputs"]}
    lengths = outputs["REQUEST_INPUT_LEN"]["data"]
    assert outputs["INPUT_ID"]["shape"] == [2, 3] and lengths == [1, 3]
    assert outputs["STOP_WORDS_IDS"]["shape"] == [2, 2, 0]


def test_postprocessing_without_the_streaming_tensors_decodes_whole_sequences(echo_server):
    tokens = {
        "TOKENS_BATCH": ("INT32", [1, 2, 3], [64, 65, 66, 67, 68, 69]),
        "SEQUENCE_LENGTH": ("INT32", [1, 2], [3, 2]),
    }
    answer = http_client.infer(echo_server.http_port, "postprocessing", tokens)
    assert answer.body["outputs"][0]["data"] == ["abc", "de"]
