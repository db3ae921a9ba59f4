"""The llmapi repository: one model from text to text, whose requests are those of TensorRT-LLM's."""

import shutil
from importlib.util import find_spec

import http_client
import pytest

pytestmark = pytest.mark.skipif(find_spec("pytriton") is None, reason="nvidia-pytriton is not installed")

PROMPT = "a b c"
REQUEST = {"text_input": PROMPT, "sampling_param_max_tokens": 8}


@pytest.fixture(scope="module")
def server(tiny_server_engine, tmp_path_factory):
    """Beside tensorrt_llm, as `inflight repo --llmapi` makes it, a decoupled one."""
    from inflight.cli import main
    from inflight.launcher.server import TritonServer

    repository = tmp_path_factory.mktemp("llmapi") / "repository"
    assert main(["repo", str(tiny_server_engine), "--llmapi", "--out", str(repository)]) == 0
    decoupled = shutil.copytree(repository / "tensorrt_llm", repository / "decoupled")
    config = (decoupled / "config.pbtxt").read_text().replace('name: "tensorrt_llm"', 'name: "decoupled"')
    (decoupled / "config.pbtxt").write_text(config.replace("decoupled: false", "decoupled: true"))
    with TritonServer(repository) as server:
        yield server


@pytest.fixture(scope="module")
def text(tiny_server) -> str:
    """What the ensemble makes of the prompt, which is a part of it."""
    return http_client.generate(tiny_server.http_port, {"text_input": PROMPT, "max_tokens": 8})["text_output"]


def ask(server, model="tensorrt_llm", **changes) -> http_client.Answer:
    return http_client.post(server.http_port, f"/v2/models/{model}/generate", {**REQUEST, **changes})


@pytest.mark.parametrize("model", ["tensorrt_llm", "decoupled"])
def test_the_text_is_that_of_the_ensemble(server, text, model):
    assert ask(server, model).body["text_output"] == text
    assert ask(server, model, sampling_param_exclude_input_from_output=True).body["text_output"] == text[len(PROMPT) :]


def test_each_response_of_a_stream_has_the_text_so_far(server, text):
    events = list(http_client.generate_stream(server.http_port, {**REQUEST, "streaming": True}, "decoupled"))
    texts = [event["text_output"] for event in events]
    assert texts[-1] == text[len(PROMPT) :]
    assert all(after.startswith(before.rstrip("\ufffd")) for before, after in zip(texts, texts[1:], strict=False))


def test_reasons_and_probabilities_come_when_asked_for(server):
    asked = {"return_finish_reason": True, "return_stop_reason": True, "return_cumulative_logprob": True}
    answer = ask(server, **asked).body
    assert answer["finish_reason"] == "length" and answer["stop_reason"] == "None" and answer["cumulative_logprob"] < 0
    assert not ask(server).body.keys() & {"finish_reason", "stop_reason", "cumulative_logprob"}


def test_sampling_follows_its_seed(server):
    sampled = {"sampling_param_temperature": 1.0, "sampling_param_top_k": 50}
    texts = [ask(server, **sampled, sampling_param_seed=seed).body["text_output"] for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1] and len(set(texts)) > 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sampling_param_beam_width": 2}, "sampling_param_beam_width is 2"),
        ({"text_input": ["a", "b"]}, "text_input has 2 values"),
        ({"streaming": True}, "fill decoupled_mode with true"),
        ({"sampling_param_top_p": 1.5}, "top_p is 1.5"),
        ({"text_input": ""}, "empty"),
        ({"sampling_param_max_token": 5}, '"sampling_param_max_token"; did you mean sampling_param_max_tokens?'),
        ({"sampling_param_return_perf_metrics": True}, '"sampling_param_return_perf_metrics"; there are return_'),
    ],
)
def test_bad_input_is_an_error_of_that_request_only(server, text, changes, named):
    answer = ask(server, **changes)
    assert answer.status == 400 and named in answer.error, answer
    assert ask(server).body["text_output"] == text
