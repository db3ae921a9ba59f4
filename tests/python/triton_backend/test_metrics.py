"""The numbers on Triton's metrics port are those of a known load. The model `measured` serves nobody else."""

import json
import queue
import re
import time

import numpy as np
import prometheus
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from greedy import greedy_tokens
from requests_of_ids import request, tensors

TOKENS_PER_BLOCK = 32
HISTOGRAMS = (
    "inflight_queue_time_seconds",
    "inflight_time_to_first_token_seconds",
    "inflight_inter_token_latency_seconds",
    "inflight_request_time_seconds",
)


@pytest.fixture
def metrics(server):
    return lambda: prometheus.samples(server.metrics_port, "measured")


def generate(http, count: int = 1, **others) -> None:
    for _ in range(count):
        http.infer("measured", tensors(httpclient, request(end_id=-1, **others)))


def test_all_blocks_are_free_when_nothing_runs(metrics):
    found = metrics()
    cache = {label: value for (name, label), value in found.items() if name == "nv_trt_llm_kv_cache_block_metrics"}
    assert cache["free"] == cache["max"] > 0
    assert cache["used"] == cache["fraction"] == 0
    assert cache["tokens_per"] == TOKENS_PER_BLOCK
    assert found["nv_trt_llm_request_metrics", "active"] == found["nv_trt_llm_request_metrics", "waiting"] == 0


def test_tokens_and_steps_are_those_of_the_load(metrics, http):
    before = metrics()
    generate(http, count=3, input_ids=range(5, 25), max_tokens=7)
    expected = {
        ("inflight_tokens_total", "context"): 60,
        ("inflight_tokens_total", "generation"): 21,
        ("nv_trt_llm_general_metrics", "iteration_counter"): 21,
    }
    prometheus.wait_for(lambda: {key: metrics()[key] - before[key] for key in expected} == expected)
    timestamp = metrics()["nv_trt_llm_general_metrics", "timestamp"]
    assert abs(timestamp / 1e6 - time.time()) < 60


def test_requests_and_their_times_are_counted(metrics, http):
    before = metrics()
    generate(http, count=2, input_ids=range(5, 25), max_tokens=7)
    key = "inflight_ended_requests_total", "completed"
    prometheus.wait_for(lambda: metrics()[key] == before[key] + 2)
    after = metrics()
    for name in HISTOGRAMS:
        assert after[f"{name}_count", ""] == before[f"{name}_count", ""] + 2
    for name, tokens in (("nv_llm_input_token_len", 20), ("nv_llm_output_token_len", 7)):
        label = "total_input_tokens" if "input" in name else "total_output_tokens"
        assert after[f"{name}_sum", label] == before[f"{name}_sum", label] + 2 * tokens
    first, total = (
        after[f"{name}_sum", ""] - before[f"{name}_sum", ""]
        for name in ("inflight_time_to_first_token_seconds", "inflight_request_time_seconds")
    )
    assert 0 < first < total


def test_running_and_waiting_requests_and_what_they_hold(metrics, grpc):
    """200 requests on 8 slots, which outlast several reports; afterwards nothing is left."""
    answers = queue.SimpleQueue()
    arrays = tensors(grpcclient, request(range(5, 25), max_tokens=230, end_id=-1))
    for _ in range(200):
        grpc.async_infer("measured", arrays, callback=lambda result, error: answers.put(error))
    seen = []

    def is_full() -> bool:
        seen.append(metrics())
        return seen[-1]["nv_trt_llm_request_metrics", "active"] == 8

    prometheus.wait_for(is_full)
    found = seen[-1]
    assert found["nv_trt_llm_request_metrics", "max"] == 8
    assert 0 < found["nv_trt_llm_request_metrics", "waiting"] <= 192
    cache = "nv_trt_llm_kv_cache_block_metrics"
    assert found[cache, "used"] + found[cache, "free"] == found[cache, "max"]
    assert 8 <= found[cache, "used"] <= 64
    assert found[cache, "fraction"] == pytest.approx(found[cache, "used"] / found[cache, "max"])
    assert [answers.get(timeout=60) for _ in range(200)] == [None] * 200
    prometheus.wait_for(lambda: metrics()[cache, "free"] == found[cache, "max"], timeout=1)
    assert metrics()["nv_trt_llm_request_metrics", "active"] == 0


def test_drafts_are_counted(metrics, http, engine):
    """Of three drafts, two are what is generated."""
    first, second, third = greedy_tokens(engine, [[5, 6, 7]], 3)[0]
    before = metrics()
    generate(http, max_tokens=8, draft_input_ids=np.array([[first, second, (third + 1) % 480]], np.int32))
    expected = {"proposed": 3, "accepted": 2}
    name = "inflight_draft_tokens_total"
    prometheus.wait_for(lambda: {key: metrics()[name, key] - before[name, key] for key in expected} == expected)


@pytest.fixture
def steps(server, http):
    """steps(): the lines that the log has for steps of the model `measured`, once it is told to log them, as programs
    that read TensorRT-LLM's log find them."""
    http.update_log_settings({"log_verbose_level": 1})

    def steps() -> list[dict]:
        lines = re.findall(r"^measured, \d+ us: \[TensorRT-LLM\]\[INFO\] ({.*})$", server.log_file.read_text(), re.M)
        return [json.loads(line) for line in lines]

    yield steps
    http.update_log_settings({"log_verbose_level": 0})


def test_each_step_is_a_line_of_the_verbose_log_and_so_is_the_end_of_the_last(http, steps):
    generate(http, input_ids=range(5, 25), max_tokens=7)
    prometheus.wait_for(lambda: len(steps()) == 8)
    context, *generation, idle = steps()
    assert context["Total Context Tokens"] == 20 and context["Context Requests"] == 1
    assert [step["Generation Requests"] for step in generation] == [1] * 6
    assert [step["Iteration Counter"] - context["Iteration Counter"] for step in generation] == [1, 2, 3, 4, 5, 6]
    for step in (context, *generation):
        assert step["Active Request Count"] == step["Scheduled Requests"] == 1
        assert step["Used KV cache blocks"] + step["Free KV cache blocks"] == step["Max KV cache blocks"]
    assert idle["Active Request Count"] == idle["Scheduled Requests"] == idle["Used KV cache blocks"] == 0
    assert idle["Iteration Counter"] == generation[-1]["Iteration Counter"]


# Of the metrics of TensorRT-LLM, by family and label, and of the log: TensorRT-LLM's own tests compare them.
KEYS = {
    "nv_trt_llm_request_metrics": {
        "active": "Active Request Count",
        "max": "Max Request Count",
        "scheduled": "Scheduled Requests",
        "context": "Context Requests",
        "waiting": "Waiting Requests",
    },
    "nv_trt_llm_runtime_memory_metrics": {
        "cpu": "Runtime CPU Memory Usage",
        "gpu": "Runtime GPU Memory Usage",
        "pinned": "Runtime Pinned Memory Usage",
    },
    "nv_trt_llm_kv_cache_block_metrics": {
        "max": "Max KV cache blocks",
        "free": "Free KV cache blocks",
        "used": "Used KV cache blocks",
        "tokens_per": "Tokens per KV cache block",
        "reused": "Reused KV cache blocks",
        "fraction": "Fraction used KV cache blocks",
    },
    "nv_trt_llm_disaggregated_serving_metrics": {
        "kv_cache_transfer_ms": "KV cache transfer time",
        "request_count": "Request count",
    },
    "nv_trt_llm_inflight_batcher_metrics": {
        "total_context_tokens": "Total Context Tokens",
        "generation_requests": "Generation Requests",
        "micro_batch_id": "MicroBatch ID",
        "paused_requests": "Paused Requests",
    },
    "nv_trt_llm_general_metrics": {"timestamp": "Timestamp", "iteration_counter": "Iteration Counter"},
}
NOT_COMPARED = {"Timestamp", "Runtime CPU Memory Usage"}  # as they go on, or are written another way


def test_metrics_and_log_say_the_same_under_the_keys_of_tensorrt_llm(http, metrics, steps):
    before = len(steps())
    generate(http, max_tokens=3)
    prometheus.wait_for(lambda: len(steps()) == before + 4)
    last, found = steps()[-1], metrics()
    for family, keys in KEYS.items():
        assert {label for name, label in found if name == family} == keys.keys()
    metrics_of_key = {key: found[family, label] for family, keys in KEYS.items() for label, key in keys.items()}
    assert last.keys() == metrics_of_key.keys()
    assert {key: last[key] for key in last.keys() - NOT_COMPARED} == {
        key: metrics_of_key[key] for key in last.keys() - NOT_COMPARED
    }


def test_no_step_is_logged_otherwise(server, http):
    before = len(server.log_file.read_text())
    generate(http, max_tokens=4)
    time.sleep(0.2)
    assert "Iteration Counter" not in server.log_file.read_text()[before:]


def test_memory_is_that_of_the_process(metrics):
    assert 2**24 < metrics()["nv_trt_llm_runtime_memory_metrics", "cpu"] < 2**40
