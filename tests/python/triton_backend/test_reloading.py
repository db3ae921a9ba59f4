"""A model is loaded anew while Triton still unloads the old one, on another thread: they share metrics meanwhile."""

from concurrent.futures import ThreadPoolExecutor

import http_client
import prometheus
import pytest
import tritonclient.http as httpclient

from inflight.launcher.server import TritonServer

CYCLES = 150  # some 20 took the server down before metrics were made and deleted under one lock
CLIENTS = 4


@pytest.fixture(scope="module")
def explicit_server(tmp_path_factory, write_model):
    """Loads and unloads its model `measured` when it is told to."""
    repository = tmp_path_factory.mktemp("explicit")
    write_model(repository, "measured")
    with TritonServer(repository, arguments=["--model-control-mode=explicit", "--load-model=*"]) as server:
        yield server


@pytest.fixture
def http(explicit_server):
    with httpclient.InferenceServerClient(f"127.0.0.1:{explicit_server.http_port}") as client:
        yield client


@pytest.fixture
def stream(explicit_server):
    """stream(max_tokens): the answer to a request, or the first event where it is a stream, after its end."""

    def stream(max_tokens: int) -> http_client.Answer:
        body = {
            "input_ids": [5, 6, 7],
            "input_lengths": 3,
            "request_output_len": max_tokens,
            "end_id": -1,
            "streaming": True,
        }
        return http_client.post_stream(explicit_server.http_port, "/v2/models/measured/generate_stream", body)

    return stream


def test_the_new_model_keeps_the_metrics_of_the_old(explicit_server, http, stream):
    def tokens() -> float:
        return prometheus.samples(explicit_server.metrics_port, "measured")["inflight_tokens_total", "generation"]

    assert stream(max_tokens=5).status == 200
    prometheus.wait_for(lambda: tokens() == 5)
    with (explicit_server.model_repository / "measured" / "config.pbtxt").open("a") as config:
        config.write("\n")
    http.load_model("measured")
    assert stream(max_tokens=6).status == 200
    prometheus.wait_for(lambda: tokens() == 11)


def test_a_model_is_unloaded_and_loaded_again_and_again(http, stream):
    for _ in range(CYCLES):
        http.unload_model("measured")
        http.load_model("measured")
    assert stream(max_tokens=5).status == 200


def test_each_request_has_its_end_when_its_model_is_unloaded(http, stream):
    """One that comes while no model is loaded is refused, by Triton; any other runs to its end."""
    is_over = False

    def send_requests() -> list[http_client.Answer]:
        answers = []
        while not is_over:
            answers.append(stream(max_tokens=20))
        return answers

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(send_requests) for _ in range(CLIENTS)]
        for _ in range(CYCLES):
            http.unload_model("measured")
            http.load_model("measured")
        is_over = True
        answers = [answer for client in clients for answer in client.result()]
    refused = [answer for answer in answers if "no available versions" in answer.error]
    assert all(answer.status == 200 and not answer.error for answer in answers if answer not in refused), answers
    assert stream(max_tokens=5).status == 200
