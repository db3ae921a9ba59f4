"""A stream whose client has gone ends, through the ensembles too: Triton itself does not pass that on."""

import time
from importlib.util import find_spec

import grpc_client
import http_client
import pytest
import tritonclient.grpc as triton

pytestmark = pytest.mark.skipif(find_spec("pytriton") is None, reason="nvidia-pytriton is not installed")

MAX_SEQ_LEN = 1024
LENGTH = MAX_SEQ_LEN - 16  # nearly all of the KV cache: the next such request waits until this one has ended
CLIENTS = 10
ENSEMBLES = ["ensemble", "tensorrt_llm_bls"]


@pytest.fixture(scope="module")
def server(smollm2_engine, make_repository):
    from inflight.launcher.server import TritonServer

    engine = smollm2_engine(max_batch_size=4, max_num_tokens=64, max_seq_len=MAX_SEQ_LEN)
    with TritonServer(make_repository(engine, max_tokens_in_paged_kv_cache=MAX_SEQ_LEN)) as server:
        yield server
        needs_all_blocks = {"text_input": "a b" * 400, "max_tokens": 1}
        http_client.generate(server.http_port, needs_all_blocks)  # stop the server when nothing runs any more


@pytest.fixture(scope="module")
def whole_generation(server) -> float:
    """Seconds that a generation of LENGTH tokens takes."""
    begin = time.monotonic()
    http_client.generate(server.http_port, long_request())
    return time.monotonic() - begin


def long_request():
    return {"text_input": "a b", "max_tokens": LENGTH, "end_id": -1}


def test_a_stop_request_with_the_generation_id_ends_the_generation(server):
    request = {"input_ids": [1, 2, 3], "input_lengths": 3, "request_output_len": LENGTH, "end_id": -1}
    with (
        grpc_client.Stream(server.grpc_port, request, "tensorrt_llm") as running,
        triton.InferenceServerClient(f"localhost:{server.grpc_port}") as client,
    ):
        generation_id = next(running.outputs("generation_id")).item()
        client.start_stream(lambda result, error: None)
        stop = grpc_client.tensors({**request, "stop": True})
        client.async_stream_infer("tensorrt_llm", stop, request_id=f"generation-{generation_id}")
        generated = sum(output.size for output in running.outputs("output_ids"))
        assert generated < LENGTH - 1


@pytest.mark.parametrize("model", ENSEMBLES)
@pytest.mark.parametrize("leave", [grpc_client.Stream.cancel, grpc_client.Stream.disconnect])
def test_grpc_clients_that_leave_make_room_for_the_next(server, whole_generation, model, leave):
    begin = time.monotonic()
    for _ in range(CLIENTS):
        stream = grpc_client.Stream(server.grpc_port, long_request(), model)
        next(stream.texts())
        leave(stream)
    assert time.monotonic() - begin < whole_generation


@pytest.mark.parametrize("model", ENSEMBLES)
def test_http_clients_that_leave_make_room_for_the_next(server, whole_generation, model):
    begin = time.monotonic()
    for _ in range(CLIENTS):
        events = http_client.generate_stream(server.http_port, long_request(), model)
        next(events)
        events.close()
    assert time.monotonic() - begin < whole_generation
