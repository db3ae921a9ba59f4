"""The example that every client knows."""

import http_client
import pytest

EXAMPLE = {"text_input": "What is machine learning?", "max_tokens": 20, "bad_words": "", "stop_words": ""}
MODELS = ["ensemble", "tensorrt_llm_bls"]


@pytest.fixture(scope="module")
def continuation(smollm2_engine):
    """What the same engine gives without a server."""
    from inflight import LLM, SamplingParams

    with LLM(smollm2_engine(), progress=False) as llm:
        [output] = llm.generate(EXAMPLE["text_input"], SamplingParams(temperature=0, max_tokens=EXAMPLE["max_tokens"]))
    return output.outputs[0].text


@pytest.mark.parametrize("model", MODELS)
def test_documented_example(model, continuation, smollm2_server):
    answer = http_client.generate(smollm2_server.http_port, EXAMPLE, model)
    assert answer["model_name"] == model
    assert answer["model_version"] == "1"
    assert answer["sequence_index"] == 0
    assert answer["batch_index"] == 0
    assert answer["text_output"] == EXAMPLE["text_input"] + continuation


@pytest.mark.parametrize("model", MODELS)
def test_prompt_can_be_left_out_of_the_output(model, continuation, smollm2_server):
    request = {**EXAMPLE, "exclude_input_in_output": True}
    assert http_client.generate(smollm2_server.http_port, request, model)["text_output"] == continuation


@pytest.mark.parametrize("model", MODELS)
def test_stream_sends_text_as_it_is_generated(model, continuation, smollm2_server):
    texts = [event["text_output"] for event in http_client.generate_stream(smollm2_server.http_port, EXAMPLE, model)]
    assert len(texts) > 5
    assert "".join(texts) == continuation


@pytest.mark.parametrize("model", MODELS)
def test_stop_word_ends_the_text(model, continuation, smollm2_server):
    word = continuation.split()[3]
    request = {**EXAMPLE, "stop_words": [f" {word}"], "exclude_input_in_output": True}
    text = http_client.generate(smollm2_server.http_port, request, model)["text_output"]
    assert continuation.startswith(text)
    assert text.endswith(word)


@pytest.mark.parametrize("model", MODELS)
def test_bad_word_does_not_appear(model, continuation, smollm2_server):
    word = continuation.split()[3]
    request = {**EXAMPLE, "bad_words": [f" {word}"], "exclude_input_in_output": True}
    assert word not in http_client.generate(smollm2_server.http_port, request, model)["text_output"].split()


@pytest.mark.parametrize("model", MODELS)
def test_same_seed_gives_the_same_text(model, smollm2_server):
    request = {**EXAMPLE, "temperature": 1.5, "top_p": 0.95, "exclude_input_in_output": True}

    def text(seed):
        return http_client.generate(smollm2_server.http_port, {**request, "random_seed": seed}, model)["text_output"]

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(4)}) > 1


@pytest.mark.parametrize("model", MODELS)
def test_log_probs_are_returned_when_asked_for(model, smollm2_server):
    answer = http_client.generate(smollm2_server.http_port, {**EXAMPLE, "return_log_probs": True}, model)
    assert len(answer["output_log_probs"]) == EXAMPLE["max_tokens"]
    assert answer["cum_log_probs"] == pytest.approx(sum(answer["output_log_probs"]), rel=1e-4)
    assert all(value <= 0 for value in answer["output_log_probs"])
