"""Concatenated stream chunks are the text of one response, byte for byte."""

import grpc_client
import http_client
import numpy as np
import pytest

MODELS = ["ensemble", "tensorrt_llm_bls"]
PROMPTS = {
    "Chinese": "请用中文介绍一下机器学习。机器学习是",
    "emoji": "🎉🎊🎉🎊🎉🎊🎉🎊👩‍👩‍👧‍👦🎉🎊🎉🎊👩‍👩‍👧‍👦",
    "leading spaces": "def f():\n        x = 1\n        y = 2\n",
    "special tokens": "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
    "English": "The three most common words of the English language are",
}


def assert_streams_like_one_response(server, request, model):
    whole = http_client.generate(server.http_port, {**request, "exclude_input_in_output": True}, model)["text_output"]
    assert http_client.streamed_text(server.http_port, request, model) == whole
    assert grpc_client.streamed_text(server.grpc_port, request, model) == whole
    return whole


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_stream_equals_one_response(prompt, model, smollm2_server):
    assert assert_streams_like_one_response(smollm2_server, {"text_input": prompt, "max_tokens": 64}, model)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seed", range(4))
def test_random_tokens_stream_like_one_response(seed, model, tiny_server):
    """Random weights give any byte after any other: characters cut anywhere, bytes that are no character, tokens
    without text."""
    random = np.random.default_rng(seed)
    prompt = "".join(random.choice(list("a b 机器学习 🎉 é"), size=12))
    request = {"text_input": prompt, "max_tokens": 80, "temperature": 2.0, "top_k": 400, "random_seed": seed}
    assert_streams_like_one_response(tiny_server, request, model)


def test_both_models_give_the_same_text(smollm2_server):
    request = {"text_input": PROMPTS["Chinese"], "max_tokens": 48}
    texts = {model: http_client.generate(smollm2_server.http_port, request, model)["text_output"] for model in MODELS}
    assert texts["ensemble"] == texts["tensorrt_llm_bls"]
