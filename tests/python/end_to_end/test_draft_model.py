"""Speculative decoding with a draft model changes the number of steps, and nothing else."""

import time
from concurrent.futures import ThreadPoolExecutor

import http_client
import numpy as np
import prometheus
import pytest
import tritonclient.grpc as grpcclient
from requests_of_ids import request, stream

from inflight.launcher.server import TritonServer

PROMPTS = ["The river", "a", "What is machine learning?", "aaaa bbbb aaaa bbbb"]
SETTINGS = [{}, {"temperature": 0.8, "top_k": 20, "random_seed": 5}]
SERVERS = {"another model": "llama-tied", "itself": "llama"}
NUM_DRAFT_TOKENS = 3
TOKENS = 40


@pytest.fixture(scope="module")
def drafting_servers(tiny_server_engine, tiny_engine, make_repository, tmp_path_factory):
    """What drafts for tiny_server's model → a server of that pair."""
    limits = dict(max_batch_size=64, max_num_tokens=256, max_seq_len=128, tokens_per_block=16)
    servers = {}
    for drafter, name in SERVERS.items():
        draft = tiny_engine(name, **limits)
        repository = make_repository(tiny_server_engine, draft_engine_dir=draft, num_draft_tokens=NUM_DRAFT_TOKENS)
        servers[drafter] = TritonServer(repository)
    with servers["another model"], servers["itself"]:
        yield servers


@pytest.fixture(params=SERVERS)
def drafting_server(drafting_servers, request):
    return drafting_servers[request.param]


def text_requests() -> list[dict]:
    return [
        {"text_input": prompt, "max_tokens": TOKENS, "exclude_input_in_output": True, **setting}
        for prompt in PROMPTS
        for setting in SETTINGS
    ]


def counts(server) -> dict[str, float]:
    samples = prometheus.samples(server.metrics_port, "tensorrt_llm")
    return {
        "steps": samples["nv_trt_llm_general_metrics", "iteration_counter"],
        "tokens": samples["inflight_tokens_total", "generation"],
        "proposed": samples["inflight_draft_tokens_total", "proposed"],
        "accepted": samples["inflight_draft_tokens_total", "accepted"],
    }


def settled_counts(server) -> dict[str, float]:
    """The metrics follow the steps by up to 50 ms."""
    latest = {}
    while latest != (latest := counts(server)):
        time.sleep(0.2)
    return latest


def counted(server, body: dict) -> dict[str, float]:
    """What one request of text adds to the counts; no token ends it."""
    before = settled_counts(server)
    http_client.generate(server.http_port, {"end_id": -1, **body}, "tensorrt_llm_bls")
    found = {name: value - before[name] for name, value in settled_counts(server).items()}
    assert found["tokens"] == body["max_tokens"]
    return found


@pytest.mark.parametrize("model", ["tensorrt_llm_bls", "ensemble"])
@pytest.mark.parametrize("get_text", [lambda *call: http_client.generate(*call)["text_output"],
                                      http_client.streamed_text], ids=["whole", "streamed"])  # fmt: skip
def test_texts_are_those_without_drafts(drafting_server, tiny_server, model, get_text):
    expected = [http_client.generate(tiny_server.http_port, body)["text_output"] for body in text_requests()]
    with ThreadPoolExecutor(len(expected)) as threads:
        texts = list(threads.map(lambda body: get_text(drafting_server.http_port, body, model), text_requests()))
    assert texts == expected


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "runtime_top_k": 50}])
def test_tokens_are_those_without_drafts(drafting_server, tiny_server, sampling, streaming):
    arrays = request(range(5, 25), TOKENS, streaming=streaming, exclude_input_in_output=True, **sampling)
    arrays["random_seed"] = np.array([[7]], np.uint64)

    def tokens(server) -> list[int]:
        with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
            outputs = [result.as_numpy("output_ids") for result in stream(client, arrays)]
        return [token for ids in outputs if ids is not None for token in ids[0, 0]]

    found = tokens(drafting_server)
    assert len(found) > 1 and found == tokens(tiny_server)


def test_a_model_that_drafts_for_itself_is_nearly_always_right(drafting_servers):
    for setting in SETTINGS:
        found = counted(drafting_servers["itself"], {"text_input": "The river", "max_tokens": TOKENS, **setting})
        assert found["accepted"] >= 0.9 * found["proposed"] > 0
        assert found["steps"] <= 1.2 * TOKENS / (1 + NUM_DRAFT_TOKENS)


def test_another_model_is_wrong_at_times(drafting_servers):
    found = counted(drafting_servers["another model"], {"text_input": "The river", "max_tokens": TOKENS})
    assert 0 <= found["accepted"] < found["proposed"]


@pytest.mark.parametrize("limit, steps", [(0, TOKENS), (1, TOKENS // 2 + 1)])
def test_a_request_may_want_fewer_drafts_or_none(drafting_servers, limit, steps):
    body = {"text_input": "The river", "max_tokens": TOKENS, "num_draft_tokens": limit}
    found = counted(drafting_servers["itself"], body)
    assert found["proposed"] <= limit * found["steps"]
    assert found["steps"] == pytest.approx(steps, abs=2)


def test_draft_logits_are_refused_by_name_and_may_be_declined(drafting_server):
    body = {"text_input": "a", "max_tokens": 3, "num_draft_tokens": 2}
    path = "/v2/models/tensorrt_llm_bls/generate"
    assert http_client.post(drafting_server.http_port, path, {**body, "use_draft_logits": False}).status == 200
    answer = http_client.post(drafting_server.http_port, path, {**body, "use_draft_logits": True})
    assert answer.status == 400 and "use_draft_logits is set, but this version does not serve" in answer.error


def test_a_negative_number_of_drafts_is_refused(drafting_server):
    body = {"text_input": "a", "max_tokens": 3, "num_draft_tokens": -1}
    answer = http_client.post(drafting_server.http_port, "/v2/models/tensorrt_llm_bls/generate", body)
    assert answer.status == 400 and "num_draft_tokens is -1; it must be at least 0" in answer.error


def test_drafts_without_a_draft_model_are_refused(tiny_server):
    body = {"text_input": "a", "max_tokens": 3, "num_draft_tokens": 4}
    answer = http_client.post(tiny_server.http_port, "/v2/models/tensorrt_llm_bls/generate", body)
    assert answer.status == 400
    assert "num_draft_tokens is 4, but there is neither a draft model nor prompt lookup" in answer.error
    assert http_client.generate(tiny_server.http_port, {**body, "num_draft_tokens": 0}, "tensorrt_llm_bls")
