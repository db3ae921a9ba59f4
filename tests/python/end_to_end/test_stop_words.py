"""Stop words end the text where they are, whatever tokens it is made of."""

import http_client
import pytest

MODELS = ["ensemble", "tensorrt_llm_bls"]
REQUEST = {"text_input": "What is machine learning?", "max_tokens": 40, "exclude_input_in_output": True}


@pytest.fixture(scope="module")
def continuation(smollm2_server):
    return http_client.generate(smollm2_server.http_port, REQUEST)["text_output"]


def texts(server, model, **options):
    """Of one response, and of a stream."""
    request = {**REQUEST, **options}
    return [
        http_client.generate(server.http_port, request, model)["text_output"],
        http_client.streamed_text(server.http_port, request, model),
    ]


def pieces(text):
    """A word without its space, the end of one and the beginning of the next, several words, one character."""
    words = text.split()
    return [words[4], words[5][-2:] + " " + words[6][:2], " ".join(words[6:9]), text[60]]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("which", range(4))
def test_the_text_ends_at_a_stop_word(which, model, continuation, smollm2_server):
    stop = pieces(continuation)[which]
    begin = continuation.index(stop)
    assert texts(smollm2_server, model, stop_words=[stop]) == [continuation[: begin + len(stop)]] * 2
    left_out = texts(smollm2_server, model, stop_words=[stop], include_stop_str_in_output=False)
    assert left_out == [continuation[:begin]] * 2


@pytest.mark.parametrize("model", MODELS)
def test_what_only_begins_as_a_stop_word_is_not_lost(model, continuation, smollm2_server):
    stop = continuation[-8:] + "☃"
    left_out = texts(smollm2_server, model, stop_words=[stop, "", "never"], include_stop_str_in_output=False)
    assert left_out == [continuation] * 2


@pytest.mark.parametrize("model", MODELS)
def test_each_text_of_a_batch_and_each_sequence_has_its_own_end(model, smollm2_server):
    request = {**REQUEST, "temperature": 1.5, "top_k": 50, "random_seed": 3, "num_return_sequences": 3, "stream": True}

    def sequences(**options):
        result = [""] * 3
        for event in http_client.generate_stream(smollm2_server.http_port, {**request, **options}, model):
            result[event["sequence_index"]] += event["text_output"]
        return result

    whole = sequences()
    stop = whole[1][30:33]
    assert sequences(stop_words=[stop]) == [text[: text.index(stop) + 3] if stop in text else text for text in whole]


def test_a_special_token_stops_by_its_name(smollm2_server):
    request = {"text_input": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "end_id": 3, "max_tokens": 60}
    by_name = texts(smollm2_server, "ensemble", **request, stop_words=["<|im_end|>"])
    own_end = texts(smollm2_server, "ensemble", **{**request, "end_id": 2})
    assert by_name == own_end


def test_as_many_words_as_the_limits_say_are_taken(smollm2_server):
    words = [f"{number:08d}" for number in range(8192)]
    assert len(texts(smollm2_server, "ensemble", stop_words=words, bad_words=words)) == 2
