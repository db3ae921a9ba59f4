"""A client that cancels or goes away frees its blocks: the KV cache here holds one full sequence and no more, which
takes minutes to generate; a request after it begins only once it has ended."""

import json
import shutil
from contextlib import contextmanager
from statistics import median

import grpc_client
import http_client
import prometheus
import pytest
import tritonclient.grpc as triton

MAX_SEQ_LEN = 128 * 1024
LENGTH = MAX_SEQ_LEN - 16
LONG = {"text_input": "a b c", "max_tokens": LENGTH, "end_id": -1}
LONG_IDS = {"input_ids": [1, 2, 3], "input_lengths": 3, "request_output_len": LENGTH, "end_id": -1}
MODELS = {
    "ensemble": (LONG, "text_output"),
    "tensorrt_llm_bls": (LONG, "text_output"),
    "tensorrt_llm": (LONG_IDS, "output_ids"),
}
LEAVE = [grpc_client.Stream.cancel, grpc_client.Stream.disconnect]  # in turn
TIMES = 200


@pytest.fixture(scope="module")
def server(tiny_directory, tmp_path_factory, make_engine, make_repository):
    from inflight.launcher.server import TritonServer

    model = shutil.copytree(tiny_directory("llama-multi-query"), tmp_path_factory.mktemp("long") / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": MAX_SEQ_LEN}))
    engine = make_engine(
        model, "float32", max_batch_size=8, max_num_tokens=64, max_seq_len=MAX_SEQ_LEN, kv_cache_memory=2**27
    )
    repository = make_repository(
        engine,
        max_tokens_in_paged_kv_cache=MAX_SEQ_LEN,
        # Triton's gRPC threads may wait for each other for ever when a response is written in the microsecond in which
        # its cancellation arrives: at the rate of a real model, not of this one, that is too rare to be met here.
        max_responses_per_second=100,
        stats_check_period_ms=5,
    )
    # Triton 2.51 keeps some cancelled gRPC requests for ever, and its exit would wait for them.
    with TritonServer(repository, exit_timeout=1) as server:
        yield server


@pytest.fixture(scope="module")
def slow_server(smollm2_engine, make_repository):
    """Its steps take 10 ms and more: longer than a cancellation's way through Triton."""
    from inflight.launcher.server import TritonServer

    repository = make_repository(
        smollm2_engine("float32"), cancellation_check_period_ms=60_000, stats_check_period_ms=5
    )
    with TritonServer(repository, exit_timeout=1) as server:
        yield server


def metric_of(server):
    """metric_of(server)(name, label): its value now."""
    return lambda *key: prometheus.samples(server.metrics_port, "tensorrt_llm")[key]


@pytest.fixture
def metric(server):
    return metric_of(server)


@pytest.fixture
def all_are_cancelled(metric):
    """TIMES clients leave in the test: as many requests are cancelled, and as many blocks are free as before, all."""
    cancelled = ("inflight_ended_requests_total", "cancelled")
    free_blocks = ("nv_trt_llm_kv_cache_block_metrics", "free")
    before = {key: metric(*key) for key in (cancelled, free_blocks)}
    assert before[free_blocks] == metric("nv_trt_llm_kv_cache_block_metrics", "max")
    yield
    after = {**before, cancelled: before[cancelled] + TIMES}
    prometheus.wait_for(lambda: {key: metric(*key) for key in after} == after)


@contextmanager
def running(server, model: str):
    """A stream whose request has all blocks: those before it have ended, and left none behind."""
    request, output = MODELS[model]
    with grpc_client.Stream(server.grpc_port, request, model) as stream:
        assert next(stream.outputs(output)).size
        yield stream


@pytest.mark.usefixtures("all_are_cancelled")
@pytest.mark.parametrize("model", MODELS)
def test_grpc_clients_that_leave_a_stream_free_their_blocks(model, server):
    for i in range(TIMES):
        with running(server, model) as stream:
            LEAVE[i % 2](stream)


@pytest.mark.usefixtures("all_are_cancelled")
@pytest.mark.parametrize("model", MODELS)
def test_grpc_clients_that_leave_before_the_only_response_free_their_blocks(model, server, metric):
    request, _ = MODELS[model]
    for i in range(TIMES):
        with grpc_client.Stream(server.grpc_port, request, model, streaming=False) as stream:
            prometheus.wait_for(lambda: metric("nv_trt_llm_request_metrics", "active") == 1)
            LEAVE[i % 2](stream)
        prometheus.wait_for(lambda: metric("nv_trt_llm_request_metrics", "active") == 0)


@pytest.mark.usefixtures("all_are_cancelled")
def test_http_clients_that_leave_a_stream_free_their_blocks(server):
    for _ in range(TIMES):
        events = http_client.generate_stream(server.http_port, LONG)
        assert next(events)["text_output"]
        events.close()


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
def test_grpc_clients_that_leave_before_the_only_response_free_their_blocks_within_a_step(model, slow_server):
    """The step that runs when the client leaves, and perhaps the next, which begins before the cancellation arrives."""

    metric = metric_of(slow_server)

    def steps() -> float:
        return metric("nv_trt_llm_general_metrics", "iteration_counter")

    taken = []
    for i in range(9):
        request = {"text_input": "Once upon a time", "max_tokens": 1500, "end_id": -1}
        with grpc_client.Stream(slow_server.grpc_port, request, model, streaming=False) as stream:
            begin = steps() + i % 3
            prometheus.wait_for(lambda begin=begin: steps() > begin)
            before = steps()
            LEAVE[i % 2](stream)
        prometheus.wait_for(lambda: metric("nv_trt_llm_request_metrics", "active") == 0)
        taken.append(steps() - before)
    assert median(taken) <= 2, taken


def test_stop_request_ends_the_running_one(server):
    with triton.InferenceServerClient(f"localhost:{server.grpc_port}") as client:
        client.start_stream(lambda result, error: None)
        with grpc_client.Stream(server.grpc_port, LONG_IDS, "tensorrt_llm", request_id="7") as running:
            outputs = running.outputs("output_ids")
            generated = next(outputs).size
            client.async_stream_infer("tensorrt_llm", grpc_client.tensors({**LONG_IDS, "stop": True}), request_id="7")
            generated += sum(output.size for output in outputs)
        assert generated < LENGTH
