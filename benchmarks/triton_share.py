#!/usr/bin/env python3
"""How much of an engine's own throughput arrives at clients of a real tritonserver, and where the rest goes.

triton_share.py --engine DIR [--clients 32] [--seconds 30] [--repeats 5] [--json FILE]: in turn, the engine alone in a
process of its own, and through Triton (ensemble, HTTP) without and with streaming, always with the same number of
requests under way, 128 tokens in and 64 out. The clients' work is on this machine too.

CPU time is given by who spends it, in milliseconds a request: the engine's threads (those of tritonserver that work
most), tritonserver's others (HTTP, Triton's core, delivery), the Python processes of pre- and postprocessing, the
clients. Memory is that of tritonserver and its Python processes at the end, and of the engine alone.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median

from inflight._native import available_cpus
from process_times import command, cpu_seconds, descendants, memory_bytes, thread_cpu_seconds

from inflight.bench.report import print_table, write_json
from inflight.bench.serve import WORDS
from inflight.errors import InflightError
from inflight.launcher.server import TritonServer
from inflight.repository.generate import generate_repository
from inflight.text import Tokenizer

INPUT, OUTPUT = 128, 64  # tokens of a request; a word of the prompts is a token
TARGETS = {"not_streamed": 0.85, "streamed": 0.65}  # of the engine's own throughput
_PYTHON_MODELS = ("preprocessing", "postprocessing")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=Path, required=True, help="engine directory")
    parser.add_argument("--clients", type=int, default=32, help="requests under way (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each run (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    try:
        results = measure(options)
    except InflightError as error:
        print(f"triton_share.py: {error}", file=sys.stderr)
        return 1
    report(results)
    if options.json:
        write_json(options.json, options, {"results": results})
    return 0


def measure(options: argparse.Namespace) -> dict:
    runs = {"engine_alone": [], "not_streamed": [], "streamed": []}
    with tempfile.TemporaryDirectory(prefix="triton-share-") as scratch:
        repository = generate_repository(options.engine, Path(scratch) / "repository")
        for _ in range(options.repeats):
            runs["engine_alone"].append(run_engine(options))
            with TritonServer(repository) as server:
                for name in TARGETS:
                    run_clients(server, name == "streamed", options, options.seconds / 10, Path(scratch))
                    runs[name].append(run_server(server, name == "streamed", options, Path(scratch)))
                memory = server_memory(server)
    rates = {name: median(run["tokens_per_s"] for run in those) for name, those in runs.items()}
    shares = {name: rates[name] / rates["engine_alone"] for name in TARGETS}
    return {
        "tokens_per_s": rates,
        "share": shares,
        "target": TARGETS,
        "met": {name: shares[name] >= target for name, target in TARGETS.items()},
        "cpu_ms_per_request": {name: median_costs(those, "cpu_ms_per_request") for name, those in runs.items()},
        "triton_ms_per_request": {name: median_costs(runs[name], "triton_ms_per_request") for name in TARGETS},
        "tokenizing_ms_per_request": tokenizing_ms(options.engine / "tokenizer"),
        "memory_bytes": {**memory, "engine_alone": runs["engine_alone"][-1]["memory_bytes"]},
        "runs": runs,
    }


def run_engine(options: argparse.Namespace) -> dict:
    """The engine alone; see engine_alone.py."""
    script = Path(__file__).with_name("engine_alone.py")
    arguments = [options.engine, options.clients, options.seconds, INPUT, OUTPUT]
    result = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=False
    )
    if result.returncode != 0:
        raise InflightError(f"{script.name} ended with status {result.returncode}")
    return json.loads(result.stdout)


def run_clients(server: TritonServer, stream: bool, options: argparse.Namespace, seconds: float, scratch: Path) -> dict:
    """One run of `python -m inflight.bench serve`, in a process of its own as clients are."""
    written = scratch / "load.json"
    command_line = [sys.executable, "-m", "inflight.bench", "serve", f"--url=127.0.0.1:{server.http_port}"]
    command_line += [f"--clients={options.clients}", f"--duration={seconds}"]
    command_line += [f"--prompt-words={INPUT}", f"--output={OUTPUT}", f"--json={written}"]
    command_line += ["--stream"] if stream else []
    result = subprocess.run(command_line, stdout=subprocess.DEVNULL)
    if result.returncode != 0:
        raise InflightError(f"requests failed or hung; see {server.log_file}")
    return json.loads(written.read_text(encoding="utf-8"))["results"]


def run_server(server: TritonServer, stream: bool, options: argparse.Namespace, scratch: Path) -> dict:
    """One run through Triton, and who spent how much CPU time on it."""
    pids = server_processes()
    threads, processes = thread_cpu_seconds(pids["tritonserver"]), {name: cpu_seconds(pids[name]) for name in pids}
    children, statistics = _children_seconds(), model_statistics(server)
    start = time.perf_counter()
    load = run_clients(server, stream, options, options.seconds, scratch)
    wall = time.perf_counter() - start

    spent = {name: cpu_seconds(pids[name]) - before for name, before in processes.items()}
    by_thread = thread_cpu_seconds(pids["tritonserver"])
    busiest = sorted((seconds - threads.get(thread, 0.0) for thread, seconds in by_thread.items()), reverse=True)
    engine = sum(busiest[: available_cpus()])
    seconds = {
        "engine": engine,
        "tritonserver's others": spent["tritonserver"] - engine,
        **{name: spent[name] for name in _PYTHON_MODELS},
        "clients": _children_seconds() - children,
    }
    seconds["idle"] = wall * available_cpus() - sum(seconds.values())
    requests = load["completed_requests"]
    return {
        "tokens_per_s": load["tokens_per_s"],
        "first_response_ms": load["first_response_ms"],
        "cpu_ms_per_request": {name: 1000 * value / requests for name, value in seconds.items()},
        "triton_ms_per_request": model_times(statistics, model_statistics(server), requests),
    }


def server_processes() -> dict[str, int]:
    """Process ids of tritonserver and of its Python models."""
    names = ("tritonserver", *_PYTHON_MODELS)
    commands = {pid: command(pid) for pid in descendants(os.getpid())}
    found = {}
    for pid, line in commands.items():
        stub = "triton_python_backend_stub" in line
        name = next((name for name in _PYTHON_MODELS if stub and f"/{name}/" in line), None if stub else names[0])
        if name and (stub or "--model-repository=" in line):
            found[name] = pid
    if missing := set(names) - found.keys():
        raise InflightError(f"no process of {', '.join(sorted(missing))} among {list(commands.values())}", "internal")
    return found


def server_memory(server: TritonServer) -> dict[str, dict[str, int]]:
    return {name: memory_bytes(pid) for name, pid in server_processes().items()}


def model_statistics(server: TritonServer) -> dict[str, dict]:
    """Triton's own statistics by model.

    https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md
    """
    with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/v2/models/stats", timeout=30) as answer:
        return {model["name"]: model["inference_stats"] for model in json.load(answer)["model_stats"]}


def model_times(before: dict, after: dict, requests: int) -> dict[str, dict[str, float]]:
    """Milliseconds a request that each model's executions took, queued and computing, as Triton counts them."""
    return {
        name: {
            part: (after[name][part]["ns"] - before[name][part]["ns"]) / requests * 1e-6
            for part in ("queue", "compute_input", "compute_infer", "compute_output")
        }
        for name in after
    }


def tokenizing_ms(directory: Path) -> dict[str, float]:
    """What the tokenizer alone needs for the prompt and for the answer of a request."""
    tokenizer = Tokenizer(directory)
    prompt = " ".join(random.Random(0).choices(WORDS, k=INPUT))
    ids = tokenizer.encode(prompt)
    if abs(len(ids) - INPUT) > INPUT // 10:
        raise InflightError(f"a prompt of {INPUT} words is {len(ids)} tokens with this tokenizer, too far from {INPUT}")
    return {
        "encode": _best_ms(lambda: tokenizer.encode(prompt)),
        "decode": _best_ms(lambda: tokenizer.decode(ids[:OUTPUT])),
    }


def median_costs(runs: list[dict], key: str) -> dict:
    """The median of each figure, of nested ones as well."""

    def combine(values: list):
        if isinstance(values[0], dict):
            return {name: combine([value[name] for value in values]) for name in values[0]}
        return median(values)

    return combine([run[key] for run in runs])


def report(results: dict) -> None:
    print(f"engine alone: {results['tokens_per_s']['engine_alone']:.1f} tokens/s")
    for name, share in results["share"].items():
        verdict = "met" if results["met"][name] else "not met"
        print(
            f"through Triton, {name.replace('_', ' ')}: {results['tokens_per_s'][name]:.1f} tokens/s, "
            f"{100 * share:.1f} % (target {100 * TARGETS[name]:.0f} %: {verdict})"
        )
    costs = results["cpu_ms_per_request"]
    print_table(
        ["CPU ms a request", *costs],
        [[who, *(costs[name].get(who, 0.0) for name in costs)] for who in costs["streamed"]],
    )
    tokenizing = results["tokenizing_ms_per_request"]
    print(f"of it tokenizing: {tokenizing['encode']:.2f} ms, its answer {tokenizing['decode']:.2f} ms")
    memory = results["memory_bytes"]
    for name in ("tritonserver", *_PYTHON_MODELS):
        print(f"{name}: {memory[name]['peak'] / 2**20:.0f} MiB resident at most")
    engine = memory["engine_alone"]
    print(
        f"engine alone: {engine['resident'] / 2**20:.0f} MiB, {engine['share']:.2f} of its "
        f"weights ({engine['weights'] / 2**20:.0f} MiB) and KV cache ({engine['kv_cache'] / 2**20:.0f} MiB)"
    )


def _children_seconds() -> float:
    """CPU time of the children that have ended: between two calls, that of the clients."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _best_ms(call) -> float:
    def once() -> float:
        start = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - start)

    return min(once() for _ in range(100))


if __name__ == "__main__":
    sys.exit(main())
