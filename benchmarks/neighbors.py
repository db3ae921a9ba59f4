#!/usr/bin/env python3
"""What requests that ask for much do to those beside them.

neighbors.py --engine DIR --kind logits|words|guides|siblings [--seconds 600] [--json FILE]: four clients stream short
answers over HTTP, first alone, then beside clients that send the heavy kind one after another:

logits    the context logits of 600 tokens, and of more than the engine's budget takes
words     as many stop and bad words as a request may have
guides    regular expressions of 42 KB, each given up after a moment
siblings  1,024 sequences of a long prompt with prompt lookup, given up after 15 seconds

The exit status is 1 if an innocent request failed, or a heavy one ended in another way than answered, refused or left.
"""

import argparse
import json
import queue
import random
import string
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from inflight.bench.report import print_table, write_json
from inflight.bench.serve import WORDS
from inflight.launcher.server import TritonServer
from inflight.repository.generate import generate_repository

INNOCENT, HEAVY = 4, 2  # clients
TIMEOUT = 120.0  # seconds without an answer, after which a request counts as failed
WORD_COUNT, WORD_BYTES = 4096, 8  # half of what is taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=Path, required=True, help="engine directory")
    parser.add_argument("--kind", choices=KINDS, required=True, help="of the heavy requests")
    parser.add_argument("--seconds", type=float, default=600.0, help="beside them, a tenth of it alone (default 600)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    lookup = {"decoding_mode": "prompt_lookup"} if options.kind == "siblings" else {}
    with tempfile.TemporaryDirectory(prefix="neighbors-") as scratch:
        with TritonServer(generate_repository(options.engine, Path(scratch) / "repository", **lookup)) as server:
            alone, _ = run(server, None, options.seconds / 10)
            beside, heavy = run(server, KINDS[options.kind], options.seconds)
    rows = [("alone", *alone.values()), ("beside", *beside.values())]
    print_table(("innocent requests", *alone), rows)
    print_table(("heavy requests end", "count"), sorted(heavy.items()))
    if options.json:
        write_json(options.json, options, {"alone": alone, "beside": beside, "heavy": dict(heavy)})
    unexpected = [end for end in heavy if end not in ("answered", "left") and not end.startswith("refused")]
    return int(bool(alone["failed"] or beside["failed"] or unexpected))


def run(server: TritonServer, heavy: Callable[[TritonServer], str] | None, seconds: float) -> tuple[dict, Counter]:
    """What the innocent requests saw, times in milliseconds, and how the heavy ones ended."""
    ends: Counter[str] = Counter()
    firsts: list[float] = []
    gaps: list[float] = []
    failures: list[str] = []
    until = time.monotonic() + seconds

    def be_innocent() -> None:
        while time.monotonic() < until:
            try:
                times = stream(server.http_port, {"max_tokens": 64, "end_id": -1})
            except (OSError, ValueError) as error:
                failures.append(str(error))
                continue
            firsts.append(times[1] - times[0])
            gaps.extend(np.diff(times[1:]))

    def be_heavy() -> None:
        while time.monotonic() < until:
            ends[heavy(server)] += 1

    threads = [threading.Thread(target=be_innocent) for _ in range(INNOCENT)]
    threads += [threading.Thread(target=be_heavy) for _ in range(HEAVY if heavy else 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in sorted(set(failures)):
        print(f"an innocent request failed: {failure}", file=sys.stderr)
    seen = {"requests": len(firsts), "failed": len(failures)}
    for name, values in (("first token", firsts), ("gap", gaps)):
        for percentile in (50, 99, 100):
            seen[f"{name} p{percentile}"] = float(np.percentile(values, percentile)) * 1e3 if values else float("nan")
    return seen, ends


def stream(port: int, fields: dict, words: int = 16, patience: float = TIMEOUT) -> list[float]:
    """When the request was sent, and when each event came.

    Raises: TimeoutError after `patience` seconds without an event; ValueError with the server's error.
    """
    body = {"text_input": " ".join(random.choices(WORDS, k=words)), "stream": True, **fields}
    times = [time.monotonic()]
    with closing(HTTPConnection("127.0.0.1", port, timeout=patience)) as connection:
        connection.request("POST", "/v2/models/ensemble/generate_stream", json.dumps(body))
        response = connection.getresponse()
        if response.status != 200:
            raise ValueError(response.read().decode())
        for line in response:
            if line.startswith(b"data:"):
                times.append(time.monotonic())
                if "error" in (event := json.loads(line[5:])):
                    raise ValueError(event["error"])
    return times


def end_of(server: TritonServer, fields: dict, words: int = 16, patience: float = TIMEOUT) -> str:
    try:
        stream(server.http_port, fields, words, patience)
    except TimeoutError:
        return "left"
    except ValueError as error:
        return f"refused: {error}"[:120]
    return "answered"


def logits(server: TritonServer) -> str:
    """Over gRPC, since as JSON they would measure Triton's JSON."""
    words = random.choice((600, 6000))
    text = triton.InferInput("text_input", [1, 1], "BYTES")
    text.set_data_from_numpy(np.array([[" ".join(random.choices(WORDS, k=words)).encode()]], np.object_))
    tokens = triton.InferInput("max_tokens", [1, 1], "INT32")
    tokens.set_data_from_numpy(np.array([[2]], np.int32))
    wanted = triton.InferInput("return_context_logits", [1, 1], "BOOL")
    wanted.set_data_from_numpy(np.array([[True]]))
    responses: queue.SimpleQueue = queue.SimpleQueue()
    with triton.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        client.start_stream(lambda result, error: responses.put((result, error)))
        client.async_stream_infer("ensemble", [text, tokens, wanted])
        result, error = responses.get(timeout=TIMEOUT)
    if isinstance(error, InferenceServerException):
        return f"refused: {error.message()}"[:120]
    return "answered" if result.as_numpy("context_logits").size > words else "without logits"


def words(server: TritonServer) -> str:
    lists = {
        name: ["".join(random.choices(string.ascii_lowercase, k=WORD_BYTES)) for _ in range(WORD_COUNT)]
        for name in ("stop_words", "bad_words")
    }
    return end_of(server, {"max_tokens": 64, "end_id": -1, **lists})


def guides(server: TritonServer) -> str:
    choices = ["".join(random.choices(string.ascii_lowercase, k=20)) for _ in range(2000)]
    guide = {"guided_decoding_guide_type": "regex", "guided_decoding_guide": f"({'|'.join(choices)})*"}
    return end_of(server, {"max_tokens": 8, **guide}, patience=random.uniform(0.05, 0.5))


def siblings(server: TritonServer) -> str:
    many = {"max_tokens": 512, "end_id": -1, "num_return_sequences": 1024, "temperature": 1.0, "top_k": 50}
    return end_of(server, many, words=6500, patience=15.0)


KINDS: dict[str, Callable[[TritonServer], str]] = {
    "logits": logits,
    "words": words,
    "guides": guides,
    "siblings": siblings,
}

if __name__ == "__main__":
    sys.exit(main())
