"""Many streams at once: each gets exactly the text that it would get alone."""

from concurrent.futures import ThreadPoolExecutor

import grpc_client
import http_client
import pytest

STREAMS = 32
TOPICS = ["rivers", "trains", "bread", "the moon", "chess", "rain", "music", "ants"]
REQUESTS = [
    {
        "text_input": f"Here are {count} facts about {topic}:",
        "max_tokens": 16 + 2 * count,
        **({"temperature": 1.2, "top_p": 0.9, "random_seed": count} if count % 2 else {}),
    }
    for topic in TOPICS
    for count in range(2, 2 + STREAMS // len(TOPICS))
]


@pytest.fixture(scope="module")
def texts_alone(smollm2_server):
    return [http_client.streamed_text(smollm2_server.http_port, request) for request in REQUESTS]


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_concurrent_streams_get_the_text_that_they_get_alone(protocol, model, texts_alone, smollm2_server):
    client, port = {
        "http": (http_client, smollm2_server.http_port),
        "grpc": (grpc_client, smollm2_server.grpc_port),
    }[protocol]
    with ThreadPoolExecutor(STREAMS) as pool:
        texts = list(pool.map(lambda request: client.streamed_text(port, request, model), REQUESTS))
    assert texts == texts_alone


@pytest.mark.parametrize("clients", [32, 256])
def test_no_stream_hangs_when_responses_come_faster_than_http_takes_them(clients, tiny_server):
    """Triton's HTTP front end loses a stream for ever once some 270 of its responses wait on one thread."""
    request = {"text_input": "a b c", "max_tokens": 100, "end_id": -1}

    def run(_client: int) -> list[int]:
        return [len(list(http_client.generate_stream(tiny_server.http_port, request))) for _ in range(3)]

    with ThreadPoolExecutor(clients) as pool:
        counts = [count for counts in pool.map(run, range(clients)) for count in counts]
    assert len(counts) == 3 * clients
    assert min(counts) >= 1
