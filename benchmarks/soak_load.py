"""The mixed load of soak.py: every kind of request, and clients of every kind of manners."""

import http.client
import json
import queue
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import numpy as np
import tritonclient.grpc as triton

from inflight.bench.serve import WORDS

TIMEOUT = 120.0  # seconds without an answer, after which a client is hung
_STREAM, _GENERATE = "/v2/models/ensemble/generate_stream", "/v2/models/ensemble/generate"
_GUIDES = (("regex", "[0-9]{4}"), ("choice", '["yes", "no"]'), ("json_schema", '{"type": "boolean"}'))
_DATATYPES = {str: "BYTES", int: "INT32", float: "FP32", bool: "BOOL"}


class Client:
    """One client: run() makes requests, each of a random kind, until `stop` is set; `outcomes` counts how they ended.

    `outcomes`: (kind, "answered", "refused" or "left"); or, of what should not be, (kind, "hung" or the error).
    """

    def __init__(self, http_port: int, grpc_port: int, metrics_port: int, stop: threading.Event, seed: int):
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self._http_port, self._grpc_port, self._metrics_port = http_port, grpc_port, metrics_port
        self._stop = stop
        self._random = random.Random(seed)
        self._kept: http.client.HTTPConnection | None = None

    def run(self) -> None:
        kinds: dict[str, tuple[int, Callable[[], str]]] = {
            "generate": (4, lambda: self._generate({})),
            "generate_stream": (4, lambda: self._stream({})),
            "logits": (1, self._logits),
            "log_probs": (1, lambda: self._generate({"return_log_probs": True})),
            "beams": (1, lambda: self._generate({"beam_width": 2})),
            "sequences": (1, lambda: self._stream({"num_return_sequences": 3, "temperature": 1.0, "top_k": 50})),
            "guided": (2, self._guided),
            "stop_words": (1, lambda: self._stream({"stop_words": ["river stone"], "bad_words": ["window"]})),
            "leaves_stream": (3, self._leave_stream),
            "leaves_generate": (2, self._leave_generate),
            "leaves_half_sent": (1, self._leave_half_sent),
            "bad_http": (2, self._bad_http),
            "grpc_stream": (4, lambda: self._grpc(cancel=False)),
            "grpc_cancel": (3, lambda: self._grpc(cancel=True)),
            "grpc_disconnect": (2, lambda: self._grpc(cancel=True, disconnect=True)),
            "bad_grpc": (1, lambda: self._grpc(cancel=False, more={"guided_decoding_guide_type": "poem"})),
            "metrics": (1, self._metrics),
        }
        weights = [weight for weight, _ in kinds.values()]
        while not self._stop.is_set():
            kind = self._random.choices(list(kinds), weights)[0]
            try:
                outcome = kinds[kind][1]()
            except (TimeoutError, queue.Empty):
                outcome = "hung"
            except Exception as error:  # whatever it is, the report shows it
                outcome = f"{type(error).__name__}: {error}"[:200]
                self._disconnect()
            self.outcomes[kind, outcome] += 1
        self._disconnect()

    def _body(self, more: dict) -> dict:
        words = self._random.choices(WORDS, k=self._random.choice((4, 16, 64, 200)))
        return {"text_input": " ".join(words), "max_tokens": self._random.choice((1, 8, 32, 96)), **more}

    def _connect(self, fresh: bool = False) -> http.client.HTTPConnection:
        """Half of all requests come over a connection that is kept, the others over one of their own."""
        if fresh or self._random.random() < 0.5:
            return http.client.HTTPConnection("127.0.0.1", self._http_port, timeout=TIMEOUT)
        if self._kept is None:
            self._kept = http.client.HTTPConnection("127.0.0.1", self._http_port, timeout=TIMEOUT)
        return self._kept

    def _disconnect(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _post(self, path: str, body: bytes) -> tuple[int, list[dict]]:
        """The status, and the JSON of the answer or of each event."""
        connection = self._connect()
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
            events = [line[5:] for line in answer.splitlines() if line.startswith(b"data:")]
            return response.status, [json.loads(event) for event in events or [answer or b"{}"]]
        finally:
            if connection is not self._kept:
                connection.close()

    def _generate(self, more: dict) -> str:
        return _outcome(*self._post(_GENERATE, json.dumps(self._body(more)).encode()))

    def _stream(self, more: dict) -> str:
        return _outcome(*self._post(_STREAM, json.dumps(self._body({"stream": True, **more})).encode()))

    def _guided(self) -> str:
        guide_type, guide = self._random.choice(_GUIDES)
        return self._generate({"guided_decoding_guide_type": guide_type, "guided_decoding_guide": guide})

    def _logits(self) -> str:
        """A short one: logits are megabytes of JSON."""
        short = {"text_input": WORDS[0], "max_tokens": 2}
        return self._generate({"return_context_logits": True, "return_generation_logits": True, **short})

    def _leave_stream(self) -> str:
        """Reads a few events, then closes the connection."""
        with closing(self._connect(fresh=True)) as connection:
            connection.request("POST", _STREAM, json.dumps(self._body({"stream": True})))
            response = connection.getresponse()
            for _ in range(self._random.randrange(6)):
                response.readline()
        return "left"

    def _leave_generate(self) -> str:
        """Closes the connection while the request waits or runs."""
        with closing(self._connect(fresh=True)) as connection:
            connection.request("POST", self._random.choice((_GENERATE, _STREAM)), json.dumps(self._body({})))
            time.sleep(self._random.choice((0.0, 0.01, 0.1)))
        return "left"

    def _leave_half_sent(self) -> str:
        with socket.create_connection(("127.0.0.1", self._http_port), TIMEOUT) as connection:
            request = f"POST {_GENERATE} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + "{" * 500
            connection.sendall(request[: self._random.randrange(len(request))].encode())
        return "left"

    def _bad_http(self) -> str:
        path, body = self._random.choice(
            (
                (_GENERATE, b"{"),
                (_GENERATE, b'{"text_input": 5}'),
                (_GENERATE, b'{"text_input": "x", "max_tokens": -3}'),
                (_STREAM, b'{"text_input": "x", "max_tokens": 1000000000, "stream": true}'),
                ("/v2/models/nowhere/generate", b'{"text_input": "x"}'),
                ("/v2/models/tensorrt_llm/generate", b'{"input_ids": [1, 99999999], "input_lengths": 2}'),
            )
        )
        outcome = _outcome(*self._post(path, body))
        return "refused" if outcome == "refused" else "a bad request was answered"

    def _metrics(self) -> str:
        with closing(http.client.HTTPConnection("127.0.0.1", self._metrics_port, timeout=TIMEOUT)) as connection:
            connection.request("GET", "/metrics")
            return _outcome(connection.getresponse().status, [{}])

    def _grpc(self, cancel: bool, disconnect: bool = False, more: dict | None = None) -> str:
        """A stream with a channel of its own; `disconnect` leaves without cancelling what still runs."""
        responses: queue.SimpleQueue = queue.SimpleQueue()
        options = [("grpc.use_local_subchannel_pool", 1)]
        with triton.InferenceServerClient(f"127.0.0.1:{self._grpc_port}", channel_args=options) as client:
            client.start_stream(lambda result, error: responses.put((result, error)))
            body = self._body({"stream": True, **(more or {})})
            client.async_stream_infer("ensemble", _tensors(body), enable_empty_final_response=True)
            for _ in range(self._random.randrange(4)) if cancel else iter(int, 1):
                result, error = responses.get(timeout=TIMEOUT)
                if error is not None:
                    return "refused"
                if result.get_response().parameters["triton_final_response"].bool_param:
                    return "answered"
            if disconnect:
                client._channel.close()
            else:
                client.stop_stream(cancel_requests=True)
        return "left"


def _outcome(status: int, answers: list[dict]) -> str:
    return "refused" if status != 200 or "error" in answers[-1] else "answered"


def _tensors(body: dict) -> list[triton.InferInput]:
    tensors = []
    for name, value in body.items():
        tensor = triton.InferInput(name, [1, 1], _DATATYPES[type(value)])
        array = np.array([[value.encode()]], np.object_) if isinstance(value, str) else np.array([[value]])
        tensor.set_data_from_numpy(array.astype(np.int32) if type(value) is int else array)
        tensors.append(tensor)
    return tensors
