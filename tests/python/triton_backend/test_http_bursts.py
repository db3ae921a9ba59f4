"""No HTTP stream hangs, however fast its responses come (see backend/triton/preload/lossless_send.cc)."""

from concurrent.futures import ThreadPoolExecutor

import http_client

STREAMS = 32
ROUNDS = 8
TOKENS = 200
REQUEST = {"input_ids": [5, 6, 7], "input_lengths": 3, "request_output_len": TOKENS, "end_id": -1, "streaming": True}


def stream(port: int) -> int:
    """Tokens of one stream."""
    events = http_client.generate_stream(port, REQUEST, "unpaced")
    return sum(event["sequence_length"] for event in events)


def test_bursts_of_responses_all_arrive(server):
    with ThreadPoolExecutor(STREAMS) as pool:
        tokens = list(pool.map(lambda _: stream(server.http_port), range(STREAMS * ROUNDS)))
    assert tokens == [TOKENS] * (STREAMS * ROUNDS)
