"""Guides that take long to compile stand in nobody's way, and those that nobody waits for any more are dropped."""

import queue
import re

import http_client
import prometheus
import tritonclient.grpc as triton
from grpc_client import tensors

TEXT = "Pick a number:"
LIGHT = {"text_input": TEXT, "guided_decoding_guide_type": "regex", "guided_decoding_guide": "[0-9]{4}"}
REFUSAL = re.compile(r"guided_decoding: [0-9]+ large guides wait to be compiled; try again later")


def heavy(number: int) -> dict:
    """One that is compiled until its budget is spent."""
    guide = "a" * 120_000 + str(number)
    return {"text_input": TEXT, "guided_decoding_guide_type": "regex", "guided_decoding_guide": guide}


def light_text(server) -> str:
    request = {**LIGHT, "max_tokens": 10, "exclude_input_in_output": True}
    return http_client.generate(server.http_port, request)["text_output"]


def test_heavy_guides_stand_in_nobodys_way(smollm2_server):
    ends: queue.SimpleQueue = queue.SimpleQueue()

    def number_waiting() -> float:
        requests = prometheus.samples(smollm2_server.metrics_port, "tensorrt_llm")
        return requests["nv_trt_llm_request_metrics", "waiting"]

    with triton.InferenceServerClient(f"localhost:{smollm2_server.grpc_port}") as client:
        client.start_stream(lambda result, error: ends.put(error))
        for number in range(60):  # more than may wait, and are compiled while they are sent
            client.async_stream_infer("ensemble", tensors({**heavy(number), "max_tokens": 10}))
        while not REFUSAL.search(str(ends.get(timeout=60))):
            pass
        assert re.fullmatch("[0-9]{4}", light_text(smollm2_server))
        assert number_waiting() > 0  # heavy ones
        client.stop_stream(cancel_requests=True)
    prometheus.wait_for(lambda: number_waiting() == 0, timeout=60)
    assert re.fullmatch("[0-9]{4}", light_text(smollm2_server))
