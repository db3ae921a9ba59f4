"""Requests whose only output is generation_id: their responses are announced, and fetched by requests with that id."""

import queue

import numpy as np
import prometheus
import pytest
import tritonclient.grpc as grpcclient
from requests_of_ids import request, tensors
from tritonclient.utils import InferenceServerException

PROMPT = (5, 6, 7, 200)
MAX_TOKENS = 24
ONLY_GENERATION_ID = [grpcclient.InferRequestedOutput("generation_id")]
MAX_BATCH_SIZE = 8


class Announcements:
    """What a client is sent of an announced request."""

    def __init__(self, client, arrays: dict, model: str = "tensorrt_llm"):
        self._client = client
        self._responses = queue.SimpleQueue()
        client.start_stream(lambda result, error: self._responses.put((result, error)))
        client.async_stream_infer(
            model, tensors(grpcclient, arrays), outputs=ONLY_GENERATION_ID, enable_empty_final_response=True
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._client.stop_stream(cancel_requests=True)

    def __iter__(self):
        """The generation's id, once for each announcement."""
        is_final = False
        while not is_final:
            result, error = self._responses.get(timeout=60)
            if error is not None:
                raise error
            is_final = result.get_response().parameters["triton_final_response"].bool_param
            if result.as_numpy("generation_id") is not None:
                yield result.as_numpy("generation_id").item()


@pytest.fixture
def fetch(server):
    """fetch(generation_id): the responses to one fetch, none or one."""
    responses = queue.SimpleQueue()
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        client.start_stream(lambda result, error: responses.put((result, error)))

        def fetch(generation_id: int, model: str = "tensorrt_llm") -> list:
            arrays = {"generation_id": np.array([[generation_id]], np.uint64)}
            client.async_stream_infer(model, tensors(grpcclient, arrays), enable_empty_final_response=True)
            result, error = responses.get(timeout=60)
            if error is not None:
                raise error
            return [result] if result.get_response().outputs else []

        yield fetch
        client.stop_stream()


def never_ends(**others) -> dict:
    return request(PROMPT, MAX_TOKENS, end_id=-1, **others)


def sent_tokens(client) -> list[int]:
    """What the same request is sent without being announced."""
    responses = queue.SimpleQueue()
    client.start_stream(lambda result, error: responses.put((result, error)))
    client.async_stream_infer("tensorrt_llm", tensors(grpcclient, never_ends()))
    result, error = responses.get(timeout=60)
    client.stop_stream()
    assert error is None
    return result.as_numpy("output_ids")[0, 0].tolist()


def num_waiting(server) -> float:
    return prometheus.samples(server.metrics_port, "tensorrt_llm")["nv_trt_llm_request_metrics", "waiting"]


def test_a_stream_is_fetched_piece_by_piece(grpc, fetch):
    expected = sent_tokens(grpc)[len(PROMPT) :]
    with Announcements(grpc, never_ends(streaming=True)) as announcements:
        results = [result for generation_id in announcements for result in fetch(generation_id)]
    tokens = []
    for result in results:
        assert result.as_numpy("preceding_ids").tolist() == [([-1] * 16 + tokens)[-16:]]
        tokens += result.as_numpy("output_ids")[0, 0].tolist()
    assert tokens == expected
    assert [result.as_numpy("sequence_finished").item() for result in results] == [False] * (len(results) - 1) + [True]


def test_the_only_response_is_fetched_with_all_outputs(grpc, fetch):
    with Announcements(grpc, never_ends(return_log_probs=True)) as announcements:
        (result,) = [result for generation_id in announcements for result in fetch(generation_id)]
    assert result.as_numpy("output_ids")[0, 0].tolist() == sent_tokens(grpc)
    assert result.as_numpy("output_log_probs").shape == (1, 1, MAX_TOKENS)


def test_a_sequence_of_a_batch_is_told_by_its_index(grpc, fetch):
    arrays = {name: np.concatenate([array, array]) for name, array in never_ends().items()}
    with Announcements(grpc, arrays) as announcements:
        results = [result for generation_id in announcements for result in fetch(generation_id)]
    assert sorted(result.as_numpy("batch_index").item() for result in results) == [0, 1]


def test_a_request_that_waits_is_announced_nonetheless(grpc, fetch, server):
    with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as others:
        others.start_stream(lambda result, error: None)
        for _ in range(80 * MAX_BATCH_SIZE):
            others.async_stream_infer("tensorrt_llm", tensors(grpcclient, request(PROMPT, 250, end_id=-1)))
        prometheus.wait_for(lambda: num_waiting(server) > 40 * MAX_BATCH_SIZE)
        with Announcements(grpc, never_ends()) as announcements:
            fetched = [len(fetch(generation_id)) for generation_id in announcements]
        others.stop_stream()
    assert len(fetched) > 1 and sum(fetched) == 1


def test_a_response_is_fetched_once_and_then_there_is_none(grpc, fetch):
    with Announcements(grpc, never_ends()) as announcements:
        *_, generation_id = announcements
    assert len(fetch(generation_id)) == 1
    assert fetch(generation_id) == []


def test_nothing_to_fetch_is_an_error_where_every_request_has_a_response(fetch):
    with pytest.raises(InferenceServerException, match="generation_id 1 has no response to fetch"):
        fetch(1, "coupled")


def test_an_error_is_sent_to_the_request_itself(grpc):
    with (
        Announcements(grpc, never_ends(beam_width=9)) as announcements,
        pytest.raises(InferenceServerException, match="beam_width"),
    ):
        next(iter(announcements))
