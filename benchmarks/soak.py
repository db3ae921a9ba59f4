#!/usr/bin/env python3
"""What a server holds while it serves a mixed load: descriptors by kind, and memory, of each of its processes.

soak.py --engine DIR [--seconds 3600] [--clients 12] [--period 10] [--json FILE]: starts a server, then the clients of
soak_load.py (generate, generate_stream, gRPC streams, logits, beams, guides, bad requests, clients that cancel and
clients that go away), and samples /proc every `period` seconds; at the end once more, when all clients have gone.
Growth is the slope of a line through the samples of the second half: the first one fills the KV cache, whose pages are
there from when they are first used, and other pools. The exit status is 1 if a request hung or ended as none should, or
the server died.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from process_times import command, descendants, descriptors, memory_bytes
from soak_load import Client

from inflight.bench.report import print_table, write_json
from inflight.errors import InflightError
from inflight.launcher.server import TritonServer
from inflight.repository.generate import generate_repository

IDLE_SECONDS = 5.0  # before the last sample
EXPECTED = ("answered", "refused", "left")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=Path, required=True, help="engine directory")
    parser.add_argument("--seconds", type=float, default=3600.0, help="of load (default %(default)s)")
    parser.add_argument("--clients", type=int, default=12, help="requests under way (default %(default)s)")
    parser.add_argument("--period", type=float, default=10.0, help="seconds between samples (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the load (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
            with TritonServer(generate_repository(options.engine, Path(scratch) / "repository")) as server:
                results = soak(server, options)
    except InflightError as error:
        print(f"soak.py: {error}", file=sys.stderr)
        return 1
    report(results)
    if options.json:
        write_json(options.json, options, results)
    return 1 if results["unexpected"] else 0


def soak(server: TritonServer, options: argparse.Namespace) -> dict:
    stop = threading.Event()
    ports = server.http_port, server.grpc_port, server.metrics_port
    clients = [Client(*ports, stop, options.seed + number) for number in range(options.clients)]
    threads = [threading.Thread(target=client.run, daemon=True) for client in clients]
    start = time.monotonic()
    samples = [sample(start, ports)]
    for thread in threads:
        thread.start()
    status = None
    while status is None and (left := start + options.seconds - time.monotonic()) > 0:
        status = server.wait(min(options.period, left))
        if status is None:
            samples.append(sample(start, ports))
    stop.set()
    for thread in threads:
        thread.join()
    time.sleep(IDLE_SECONDS)
    outcomes = sum((client.outcomes for client in clients), Counter())
    if status is not None:
        outcomes["tritonserver", f"ended with status {status}, see {server.log_file}"] += 1
    requests: dict[str, dict[str, int]] = {}
    for (kind, outcome), count in sorted(outcomes.items()):
        requests.setdefault(kind, {})[outcome] = count
    return {
        "requests": requests,
        "unexpected": {f"{kind}: {outcome}": n for (kind, outcome), n in outcomes.items() if outcome not in EXPECTED},
        "growth_per_hour": growth(samples),
        "idle": sample(start, ports),
        "samples": samples,
    }


def sample(start: float, ports: tuple[int, int, int]) -> dict:
    """Of each process: descriptors by kind, and memory in bytes."""
    names = dict(zip(ports, ("http", "grpc", "metrics"), strict=True))
    processes = {
        name: {"descriptors": dict(descriptors(pid, names)), "memory": memory_bytes(pid)}
        for name, pid in server_processes().items()
    }
    return {"seconds": time.monotonic() - start, "processes": processes}


def server_processes() -> dict[str, int]:
    """tritonserver, and each stub by its model."""
    found = {}
    for pid in descendants(os.getpid()):
        words = command(pid).split()  # none of one that has just ended
        if not words:
            continue
        if "--model-repository=" in " ".join(words):
            found["tritonserver"] = pid
        elif words[0].endswith("triton_python_backend_stub"):
            found[Path(words[1]).parent.parent.name] = pid
    return found


def growth(samples: list[dict]) -> dict[str, dict[str, float]]:
    """By process: descriptors and bytes of memory an hour."""
    later = samples[len(samples) // 2 :]
    if len(later) < 2:
        return {}
    hours = [entry["seconds"] / 3600 for entry in later]
    slopes = {}
    for name in later[-1]["processes"]:
        held = [entry["processes"].get(name) for entry in later]
        if None in held:
            continue
        series = {"descriptors": [sum(process["descriptors"].values()) for process in held]}
        for kind in held[0]["memory"]:
            series[kind] = [process["memory"][kind] for process in held]
        slopes[name] = {key: float(np.polyfit(hours, values, 1)[0]) for key, values in series.items()}
    return slopes


def report(results: dict) -> None:
    outcomes = [(kind, *map(counts.get, EXPECTED, [0] * 3)) for kind, counts in results["requests"].items()]
    print_table(("kind", *EXPECTED), outcomes)
    rows = []
    first, last, idle = results["samples"][0], results["samples"][-1], results["idle"]
    for name, process in idle["processes"].items():
        series = [entry["processes"].get(name, process) for entry in (first, last, idle)]
        slopes = results["growth_per_hour"].get(name, {})
        for key, size in (("descriptors", 1), ("resident", 2**20), ("anonymous", 2**20)):
            values = [sum(held["descriptors"].values()) if size == 1 else held["memory"][key] / size for held in series]
            rows.append((name, key if size == 1 else f"{key} MiB", *map(float, values), slopes.get(key, 0.0) / size))
    print_table(("process", "", "first", "last", "idle", "an hour"), rows)
    for outcome, count in results["unexpected"].items():
        print(f"unexpected: {count} × {outcome}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
