"""A large text costs its sender an error, and nobody else anything."""

import json
import urllib.request

import http_client
import pytest

SHORT = {"text_input": "a b c", "max_tokens": 2}


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
@pytest.mark.parametrize(
    ("size", "message"),
    [(8_000_000, "has 8000000 bytes; this engine takes at most 127 tokens"), (1100, "this engine takes at most 127")],
    ids=["too large to be tokenized", "too many tokens"],
)
def test_text_is_refused_before_it_takes_time(tiny_server, model, size, message):
    body = {"text_input": "z" * size, "max_tokens": 2}
    answer = http_client.post(tiny_server.http_port, f"/v2/models/{model}/generate", body)
    assert answer.status == 400 and message in answer.error
    assert http_client.generate(tiny_server.http_port, SHORT, model)["text_output"]


def test_long_text_leaves_an_instance_to_short_ones(tiny_server):
    url = f"http://127.0.0.1:{tiny_server.http_port}/v2/models/preprocessing/config"
    with urllib.request.urlopen(url) as response:
        assert sum(group["count"] for group in json.load(response)["instance_group"]) >= 2
