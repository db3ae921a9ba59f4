"""Reuse of the KV cache, policies, priorities and timeouts, through Triton."""

import http_client
import numpy as np
import prometheus
import pytest
import tritonclient.http as httpclient
from greedy import greedy_tokens
from requests_of_ids import request, tensors
from tritonclient.utils import InferenceServerException

TOKENS_PER_BLOCK = 32
LONG_PROMPT = tuple(range(5, 105))  # three full blocks and a part


def reuse_counts(result) -> dict[str, int]:
    return {name: result.as_numpy(f"kv_cache_{name}_blocks").item() for name in ("alloc_new", "reused", "alloc_total")}


def test_blocks_of_a_known_prefix_are_reused_and_counted(http, server):
    arrays = request(LONG_PROMPT, 4, end_id=-1, return_kv_cache_reuse_stats=True)
    first, second = (http.infer("reuse", tensors(httpclient, arrays)) for _ in range(2))
    assert reuse_counts(first) == {"alloc_new": 4, "reused": 0, "alloc_total": 4}
    counts = reuse_counts(second)
    assert counts["reused"] >= 3 and counts["alloc_new"] + counts["reused"] == counts["alloc_total"] == 4
    assert first.as_numpy("output_ids").tolist() == second.as_numpy("output_ids").tolist()

    def reused() -> float:
        return prometheus.samples(server.metrics_port, "reuse")["nv_trt_llm_kv_cache_block_metrics", "reused"]

    prometheus.wait_for(lambda: reused() == counts["reused"])


def test_other_extra_ids_share_nothing(http):
    def reused(extra_id: int) -> int:
        prompt = tuple(token + 150 for token in LONG_PROMPT)
        extra_ids = np.full((1, len(prompt)), extra_id, np.uint64)
        arrays = request(prompt, 4, return_kv_cache_reuse_stats=True, prompt_table_extra_ids=extra_ids)
        return reuse_counts(http.infer("reuse", tensors(httpclient, arrays)))["reused"]

    assert reused(1) == reused(2) == 0
    assert reused(1) >= 3


def test_retention_is_accepted(http):
    retention = {
        "retention_token_range_starts": np.array([[0, 32]], np.int32),
        "retention_token_range_ends": np.array([[32, -1]], np.int32),
        "retention_token_range_priorities": np.array([[90, 10]], np.int32),
        "retention_token_range_durations_ms": np.array([[-1, 5000]], np.int32),
        "retention_decode_priority": 5,
        "retention_decode_duration_ms": 1000,
    }
    result = http.infer("reuse", tensors(httpclient, request(LONG_PROMPT, 4, **retention)))
    assert result.as_numpy("sequence_length").item() > len(LONG_PROMPT)
    with pytest.raises(InferenceServerException, match="retention_token_range_priorities is 101"):
        bad = {**retention, "retention_token_range_priorities": np.array([[101, 1]], np.int32)}
        http.infer("reuse", tensors(httpclient, request(LONG_PROMPT, 4, **bad)))


def test_blocks_come_back_from_the_host_tier(http, server):
    """Of five prompts of four blocks, eight blocks in all: the first is evicted, and returns."""

    def generate(first_token: int):
        prompt = range(first_token, first_token + 100)
        arrays = request(prompt, 4, end_id=-1, return_kv_cache_reuse_stats=True)
        return http.infer("host_tier", tensors(httpclient, arrays))

    def events() -> dict[str, float]:
        found = prometheus.samples(server.metrics_port, "host_tier")
        return {
            label: value for (name, label), value in found.items() if name == "inflight_kv_cache_block_events_total"
        }

    first, *_ = (generate(first_token) for first_token in (5, 80, 155, 230, 305))
    again = generate(5)
    assert again.as_numpy("output_ids").tolist() == first.as_numpy("output_ids").tolist()
    assert reuse_counts(again)["reused"] >= 3
    prometheus.wait_for(lambda: events()["offloaded"] > 0 and events()["onboarded"] >= 3)


def test_blocks_outside_of_the_attention_window_are_freed(http):
    """A sequence of eight blocks runs in a cache of seven."""
    arrays = tensors(httpclient, request(range(5, 55), 190, end_id=-1))
    assert http.infer("window", arrays).as_numpy("sequence_length").item() == 240
    with pytest.raises(InferenceServerException, match="they take 8 blocks of the KV cache, and it has 7"):
        http.infer("no_window", arrays)


@pytest.mark.parametrize("model", ["max_utilization", "static_batch", "v1"])
def test_every_policy_generates_the_same(http, engine, model):
    expected = greedy_tokens(engine, [[5, 6, 7]], 20)[0]
    pending = [
        http.async_infer(model, tensors(httpclient, request(max_tokens=20, end_id=-1, exclude_input_in_output=True)))
        for _ in range(4)
    ]
    assert [answer.get_result().as_numpy("output_ids")[0, 0].tolist() for answer in pending] == [expected] * 4


def test_static_batching_has_the_metrics_that_tensorrt_llm_has_for_it(server):
    found = prometheus.samples(server.metrics_port, "v1")
    labels = {label for name, label in found if name == "nv_trt_llm_v1_metrics"}
    assert labels == {"total_context_tokens", "total_generation_tokens", "empty_generation_slots"}


def test_a_priority_is_taken_and_checked(http):
    arrays = tensors(httpclient, request(max_tokens=4))
    http.infer("coupled", arrays, parameters={"request_priority": 0.9})
    with pytest.raises(InferenceServerException, match="priority is 2"):
        http.infer("coupled", arrays, parameters={"request_priority": 2})


def test_a_request_that_has_timed_out_ends_with_an_error(http, server):
    """By Triton's own timeout, and by that of a generate endpoint; in microseconds."""
    with pytest.raises(InferenceServerException, match="timed out"):
        http.infer("coupled", tensors(httpclient, request(max_tokens=200, end_id=-1)), timeout=1)
    scalars = {"input_ids": [5, 6, 7], "input_lengths": 3, "request_output_len": 200, "end_id": -1}
    answer = http_client.post(server.http_port, "/v2/models/coupled/generate", {**scalars, "timeout": 1})
    assert answer.status != 200 and "timed out" in answer.error
    relaxed = http.infer("coupled", tensors(httpclient, request(max_tokens=4)), timeout=60_000_000)
    assert relaxed.as_numpy("output_ids") is not None
