"""Load on a running server: --clients clients, each sending its next request when the last one is answered.

Every request generates exactly --output tokens (end_id -1: no end id ends it). A client that gets no response for
--deadline seconds is hung: it is counted, reported and not restarted. The exit status is 0 if no client hung and no
request failed. Times are per response, which may hold several tokens: the server joins tokens when it is ahead of
the client.
"""

import argparse
import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from inflight.bench.report import print_table, write_json
from inflight.errors import InflightError

WORDS = "river stone garden window music letter winter market bridge paper light silver forest engine story".split()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", required=True, help="host:port of the server's HTTP or gRPC endpoint")
    parser.add_argument("--model", default="ensemble", help="ensemble or tensorrt_llm_bls (default %(default)s)")
    parser.add_argument("--protocol", choices=["http", "grpc"], default="http")
    parser.add_argument("--stream", action="store_true", help="one response for each piece of text")
    parser.add_argument("--clients", type=int, default=32, help="default %(default)s")
    parser.add_argument(
        "--duration", type=float, default=60.0, help="seconds of starting requests (default %(default)s)"
    )
    parser.add_argument("--prompt-words", type=int, default=32, help="random words of a prompt (default %(default)s)")
    parser.add_argument("--output", type=int, default=64, help="generated tokens of a request (default %(default)s)")
    parser.add_argument("--deadline", type=float, default=30.0, help="seconds without a response (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures here")


def run(options: argparse.Namespace) -> int:
    if min(options.clients, options.prompt_words, options.output) < 1 or min(options.duration, options.deadline) <= 0:
        raise InflightError("--clients, --prompt-words, --output, --duration and --deadline must be positive")
    records, seconds = asyncio.run(_load(options))
    summary = _summarize(records, seconds, options.output)
    _print(summary)
    if options.json:
        per_client = [{"completed": record.completed, "responses": record.responses} for record in records]
        write_json(options.json, options, {"results": summary, "per_client": per_client})
    return 1 if summary["hung_clients"] or summary["failed_requests"] else 0


@dataclass
class Record:
    """What one client saw."""

    completed: int = 0
    responses: int = 0
    hung: bool = False
    errors: list[str] = field(default_factory=list)
    first_response_seconds: list[float] = field(default_factory=list)
    between_responses_seconds: list[float] = field(default_factory=list)
    request_seconds: list[float] = field(default_factory=list)
    last_activity: float = 0.0


async def _load(options: argparse.Namespace) -> tuple[list[Record], float]:
    start = time.perf_counter()
    stop = start + options.duration
    records = [Record(last_activity=start) for _ in range(options.clients)]
    tasks = [asyncio.create_task(_run_client(index, record, options, stop)) for index, record in enumerate(records)]
    watchdog = asyncio.create_task(_watch(records, tasks, options.deadline))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    watchdog.cancel()
    for result in results:
        if isinstance(result, Exception):
            raise result
    return records, time.perf_counter() - start


async def _run_client(index: int, record: Record, options: argparse.Namespace, stop: float) -> None:
    client = _make_client(options)
    generator = random.Random(f"{options.seed} {index}")
    try:
        while time.perf_counter() < stop:
            prompt = " ".join(generator.choices(WORDS, k=options.prompt_words))
            try:
                await _run_request(client, prompt, options.output, record)
            except InflightError as error:
                record.errors.append(str(error))
                await asyncio.sleep(0.1)  # a server that refuses is not to be flooded
    finally:
        await client.close()


def _make_client(options: argparse.Namespace):
    if options.protocol == "grpc":
        from inflight.bench.grpc_client import GrpcClient

        return GrpcClient(options.url, options.model, options.stream)
    from inflight.bench.http_client import HttpClient

    return HttpClient(options.url, options.model, options.stream)


async def _run_request(client, prompt: str, output: int, record: Record) -> None:
    start = record.last_activity = time.perf_counter()
    is_first = True
    async for _ in client.generate(prompt, output):
        now = time.perf_counter()
        seconds = record.first_response_seconds if is_first else record.between_responses_seconds
        seconds.append(now - record.last_activity)
        is_first = False
        record.responses += 1
        record.last_activity = now
    if is_first:
        raise InflightError("a request ended without a response")
    record.completed += 1
    record.request_seconds.append(time.perf_counter() - start)


async def _watch(records: list[Record], tasks: list[asyncio.Task], deadline: float) -> None:
    while True:
        await asyncio.sleep(min(0.5, deadline / 2))
        now = time.perf_counter()
        for record, task in zip(records, tasks, strict=True):
            if not task.done() and now - record.last_activity > deadline:
                record.hung = True
                task.cancel()


def _summarize(records: list[Record], seconds: float, output: int) -> dict:
    completed = [record.completed for record in records]
    errors = Counter(error for record in records for error in record.errors)
    return {
        "seconds": seconds,
        "completed_requests": sum(completed),
        "completed_per_client": {"min": min(completed), "median": float(np.median(completed)), "max": max(completed)},
        "requests_per_s": sum(completed) / seconds,
        "tokens_per_s": sum(completed) * output / seconds,
        "responses_per_s": sum(record.responses for record in records) / seconds,
        "first_response_ms": _percentiles([record.first_response_seconds for record in records]),
        "between_responses_ms": _percentiles([record.between_responses_seconds for record in records]),
        "request_ms": _percentiles([record.request_seconds for record in records]),
        "hung_clients": sum(record.hung for record in records),
        "failed_requests": sum(errors.values()),
        "errors": dict(errors.most_common(5)),
    }


def _percentiles(samples: list[list[float]]) -> dict | None:
    values = 1000 * np.concatenate([np.asarray(sample, dtype=float) for sample in samples])
    if not values.size:
        return None
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    return {"mean": values.mean(), "p50": p50, "p90": p90, "p99": p99, "max": values.max()}


def _print(summary: dict) -> None:
    per_client = summary["completed_per_client"]
    print(
        f"{summary['completed_requests']} requests in {summary['seconds']:.1f} s "
        f"(each client {per_client['min']} to {per_client['max']}), {summary['requests_per_s']:.1f} requests/s, "
        f"{summary['tokens_per_s']:.1f} tokens/s, {summary['responses_per_s']:.1f} responses/s"
    )
    rows = [
        [name.removesuffix("_ms").replace("_", " "), *map(float, summary[name].values())]
        for name in ("first_response_ms", "between_responses_ms", "request_ms")
        if summary[name]
    ]
    print_table(["milliseconds", "mean", "p50", "p90", "p99", "max"], rows)
    print(f"hung clients: {summary['hung_clients']}, failed requests: {summary['failed_requests']}")
    for message, count in summary["errors"].items():
        print(f"  {count} x {message}")
