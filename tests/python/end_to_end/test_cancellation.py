"""A client that cancels or goes away frees its blocks: the KV cache here holds one full sequence and no more."""

import time

import grpc_client
import http_client
import pytest
import tritonclient.grpc as triton

MAX_SEQ_LEN = 2048
LONG = {"text_input": "a b c", "max_tokens": MAX_SEQ_LEN - 16, "end_id": -1}
LONG_IDS = {"input_ids": [1, 2, 3], "input_lengths": 3, "request_output_len": MAX_SEQ_LEN - 16, "end_id": -1}
TIMES = 200


@pytest.fixture(scope="module")
def server(tiny_engine, make_repository):
    from inflight.launcher.server import TritonServer

    engine = tiny_engine(
        "llama-multi-query", max_batch_size=8, max_num_tokens=64, max_seq_len=MAX_SEQ_LEN, tokens_per_block=16
    )
    # Triton 2.51's gRPC threads may wait for each other for ever when a response is written in the microseconds in
    # which its cancellation arrives: at the rate of a real model, not of this one, that is too rare to be met here.
    repository = make_repository(engine, max_tokens_in_paged_kv_cache=MAX_SEQ_LEN, max_responses_per_second=100)
    # Triton 2.51 keeps some cancelled gRPC requests for ever, and its exit would wait for them.
    with TritonServer(repository, exit_timeout=1) as server:
        yield server


@pytest.fixture
def assert_all_blocks_are_free(server):
    """A request that needs every block there is runs at once: were one lost, or not free yet, it would wait for ever."""
    yield
    text = http_client.streamed_text(server.http_port, LONG)
    assert text


@pytest.mark.usefixtures("assert_all_blocks_are_free")
@pytest.mark.parametrize(
    ("model", "request_", "output"),
    [
        ("ensemble", LONG, "text_output"),
        ("tensorrt_llm_bls", LONG, "text_output"),
        ("tensorrt_llm", LONG_IDS, "output_ids"),
    ],
)
@pytest.mark.parametrize("leave", [grpc_client.Stream.cancel, grpc_client.Stream.disconnect])
def test_grpc_clients_that_leave_free_their_blocks(leave, model, request_, output, server):
    for _ in range(TIMES):
        stream = grpc_client.Stream(server.grpc_port, request_, model)
        next(stream.outputs(output))
        leave(stream)


@pytest.mark.usefixtures("assert_all_blocks_are_free")
def test_http_clients_that_leave_free_their_blocks(server):
    for _ in range(TIMES):
        events = http_client.generate_stream(server.http_port, LONG)
        next(events)
        events.close()


def test_cancelled_request_makes_room_within_a_step(server):
    """The blocks of the cancelled request are all there are, and steps take about a millisecond here."""
    with grpc_client.Stream(server.grpc_port, LONG) as stream:
        next(stream.texts())
        stream.cancel()
        started = time.monotonic()
        http_client.generate(server.http_port, {**LONG, "max_tokens": 1})
        assert time.monotonic() - started < 1


def test_stop_request_ends_the_running_one(server):
    with triton.InferenceServerClient(f"localhost:{server.grpc_port}") as client:
        client.start_stream(lambda result, error: None)
        with grpc_client.Stream(server.grpc_port, LONG_IDS, "tensorrt_llm", request_id="7") as running:
            outputs = running.outputs("output_ids")
            generated = next(outputs).size
            client.async_stream_infer(
                "tensorrt_llm", grpc_client.tensors({**LONG_IDS, "stop": True}), request_id="7"
            )
            generated += sum(output.size for output in outputs)
        assert generated < LONG_IDS["request_output_len"]
