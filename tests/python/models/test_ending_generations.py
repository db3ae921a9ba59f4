"""A stream whose client has gone ends, through the ensembles too: Triton itself does not pass that on."""

from importlib.util import find_spec

import grpc_client
import http_client
import pytest
import tritonclient.grpc as triton

pytestmark = pytest.mark.skipif(find_spec("pytriton") is None, reason="nvidia-pytriton is not installed")

MAX_SEQ_LEN = 1024
LENGTH = MAX_SEQ_LEN - 16  # nearly all of the KV cache: the next such request waits until this one has ended
NEEDS_ALL_BLOCKS = {"text_input": "a b" * 400, "max_tokens": 1}
CLIENTS = 10
ENSEMBLES = ["ensemble", "tensorrt_llm_bls"]


@pytest.fixture(scope="module")
def server(smollm2_engine, make_repository):
    from inflight.launcher.server import TritonServer

    engine = smollm2_engine(max_batch_size=4, max_num_tokens=64, max_seq_len=MAX_SEQ_LEN)
    with TritonServer(make_repository(engine, max_tokens_in_paged_kv_cache=MAX_SEQ_LEN)) as server:
        yield server
        http_client.generate(server.http_port, NEEDS_ALL_BLOCKS)  # stop the server when nothing runs any more


@pytest.fixture(scope="module")
def whole_generation(server) -> int:
    """Responses of a stream of LENGTH tokens, which postprocessing decodes one by one."""
    before = num_decoded(server)
    assert http_client.streamed_text(server.http_port, long_request())
    return num_decoded(server) - before


def num_decoded(server) -> int:
    """Responses that postprocessing has been given so far, once none will come any more."""
    http_client.generate(server.http_port, NEEDS_ALL_BLOCKS)
    with triton.InferenceServerClient(f"localhost:{server.grpc_port}") as client:
        (statistics,) = client.get_inference_statistics("postprocessing").model_stats
    return statistics.execution_count


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
def test_grpc_clients_that_leave_end_their_generations(server, whole_generation, model, leave):
    before = num_decoded(server)
    for _ in range(CLIENTS):
        stream = grpc_client.Stream(server.grpc_port, long_request(), model)
        next(stream.texts())
        leave(stream)
    assert num_decoded(server) - before < whole_generation


@pytest.mark.parametrize("model", ENSEMBLES)
def test_http_clients_that_leave_end_their_generations(server, whole_generation, model):
    before = num_decoded(server)
    for _ in range(CLIENTS):
        events = http_client.generate_stream(server.http_port, long_request(), model)
        next(events)
        events.close()
    assert num_decoded(server) - before < whole_generation
