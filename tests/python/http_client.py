"""The server's HTTP protocols through the standard library, as a client without a library sees them."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

TIMEOUT = 60.0  # seconds without a byte


@dataclass
class Answer:
    status: int
    body: dict

    @property
    def error(self) -> str:
        return self.body.get("error", "")


@contextmanager
def request(port: int, path: str, body: dict | bytes) -> Iterator[http.client.HTTPConnection]:
    """One POST of a JSON body, or of bytes as they are; who leaves without the answer closes the connection."""
    with closing(http.client.HTTPConnection("localhost", port, timeout=TIMEOUT)) as connection:
        connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())
        yield connection


def post(port: int, path: str, body: dict | bytes) -> Answer:
    """The JSON answer to one request."""
    with request(port, path, body) as connection:
        response = connection.getresponse()
        return Answer(response.status, json.loads(response.read()))


def post_stream(port: int, path: str, body: dict) -> Answer:
    """The same of an answer that may be server-sent events: then the first of them."""
    with request(port, path, body) as connection:
        response = connection.getresponse()
        return Answer(response.status, json.loads(response.read().removeprefix(b"data:").splitlines()[0]))


def generate(port: int, body: dict, model: str = "ensemble") -> dict:
    answer = post(port, f"/v2/models/{model}/generate", body)
    assert answer.status == 200, answer
    return answer.body


def generate_stream(port: int, body: dict, model: str = "ensemble") -> Iterator[dict]:
    """The events of one stream as they come; leaving the iterator early closes the connection."""
    if "streaming" not in body:  # as tensorrt_llm calls it
        body = {**body, "stream": True}
    with request(port, f"/v2/models/{model}/generate_stream", body) as connection:
        response = connection.getresponse()
        assert response.status == 200, (response.status, response.read())
        for line in response:
            if line.startswith(b"data:"):
                yield json.loads(line.removeprefix(b"data:"))


def streamed_text(port: int, body: dict, model: str = "ensemble") -> str:
    events = list(generate_stream(port, body, model))
    assert events and not any("error" in event for event in events), events
    return "".join(event["text_output"] for event in events)


def infer(port: int, model: str, inputs: dict[str, tuple[str, list[int], list]]) -> Answer:
    """KServe v2 inference; inputs: name → (datatype, shape, flat data)."""
    tensors = [
        {"name": name, "datatype": datatype, "shape": shape, "data": data}
        for name, (datatype, shape, data) in inputs.items()
    ]
    return post(port, f"/v2/models/{model}/infer", {"inputs": tensors})
