#!/usr/bin/env python3
"""Serves a model repository on free ports, asks it two questions over HTTP, and stops: demo.py REPOSITORY ENGINE."""

import json
import shlex
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from inflight.errors import InflightError
from inflight.launcher.server import TritonServer
from inflight.text import Tokenizer

QUESTION = {"text_input": "What is machine learning?", "max_tokens": 20, "bad_words": "", "stop_words": ""}
CHAT = [{"role": "user", "content": "Why is the sky blue? Answer in two sentences."}]
TIMEOUT = 60  # seconds without a byte from the server


def main(repository: Path, engine: Path) -> int:
    try:
        started = time.monotonic()
        print(f"$ python scripts/launch_server.py --world_size=1 --model_repo={repository} --http_port=0 …", flush=True)
        with TritonServer(repository) as server:
            print(f"ready after {time.monotonic() - started:.1f} s on port {server.http_port}\n", flush=True)
            address = f"localhost:{server.http_port}/v2/models/ensemble"
            generate(f"{address}/generate", QUESTION)
            prompt = Tokenizer(engine / "tokenizer").chat_prompt(CHAT)
            stream(f"{address}/generate_stream", {"text_input": prompt, "max_tokens": 96, "stream": True})
        print("The server has stopped. `make serve` starts one that stays up.")
        return 0
    except InflightError as error:
        print(f"demo: {error}", file=sys.stderr)
    except urllib.error.HTTPError as error:
        print(f"demo: the server answered {error.code}: {error.read().decode(errors='replace')}", file=sys.stderr)
    except OSError as error:
        print(f"demo: the server did not answer: {error}", file=sys.stderr)
    return 1


def generate(address: str, request: dict) -> None:
    print_curl("", address, request)
    with post(address, request) as response:
        answer = json.load(response)
    print(json.dumps(answer, ensure_ascii=False), "\n", flush=True)
    require_text(answer["text_output"])


def stream(address: str, request: dict) -> None:
    print_curl("-N ", address, request)
    text = ""
    for event in events(address, request):
        text += event["text_output"]
        print(event["text_output"], end="", flush=True)
    print("\n")
    require_text(text)


def events(address: str, request: dict) -> Iterator[dict]:
    """The responses of a generate_stream call, which come as server-sent events, `data: {JSON}` each."""
    with post(address, request) as response:
        for line in response:
            if line.startswith(b"data:"):
                event = json.loads(line.removeprefix(b"data:"))
                if "error" in event:
                    raise InflightError(f"the server answered: {event['error']}")
                yield event


def post(address: str, request: dict):
    body = json.dumps(request).encode()
    return urllib.request.urlopen(urllib.request.Request(f"http://{address}", data=body), timeout=TIMEOUT)


def print_curl(options: str, address: str, request: dict) -> None:
    print(f"$ curl {options}-X POST {address} -d {shlex.quote(json.dumps(request))}", flush=True)


def require_text(text: str) -> None:
    if not text.strip():
        raise InflightError("the model's answer is empty")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
