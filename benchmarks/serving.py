#!/usr/bin/env python3
"""Streams over HTTP and gRPC against a real tritonserver, on a model that answers as fast as it can.

serving.py [--seconds 60] [--clients 32,256] [--json FILE]: for each model, protocol and number of clients, every
client streams one answer after another. A client that hears nothing for 30 s counts as hung; the exit status is 0 if
none hung and no request failed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tiny_model import write_tiny_checkpoint

from inflight.bench.report import print_table, write_json
from inflight.engine.build import build_engine
from inflight.engine.config import BuildOptions
from inflight.launcher.server import TritonServer
from inflight.repository.generate import generate_repository

OUTPUT = 128  # tokens of an answer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run (default %(default)s)")
    parser.add_argument("--clients", default="32,256", help="numbers of clients (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        repository = make_repository(Path(scratch))
        with TritonServer(repository) as server:
            for model in ("ensemble", "tensorrt_llm_bls"):
                for protocol, port in (("http", server.http_port), ("grpc", server.grpc_port)):
                    for clients in map(int, options.clients.split(",")):
                        results = load(model, protocol, port, clients, options.seconds, Path(scratch))
                        rows.append({"model": model, "protocol": protocol, "clients": clients, **results})
    columns = ["model", "protocol", "clients", "hung_clients", "failed_requests", "tokens_per_s", "responses_per_s"]
    print_table(columns, [[row[column] for column in columns] for row in rows])
    if options.json:
        write_json(options.json, options, {"rows": rows})
    return int(any(row["hung_clients"] or row["failed_requests"] for row in rows))


def make_repository(scratch: Path) -> Path:
    write_tiny_checkpoint(scratch / "checkpoint")
    options = BuildOptions(max_batch_size=256, kv_cache_memory=256 << 20)
    build_engine(scratch / "checkpoint", scratch / "engine", options, progress=False)
    return generate_repository(scratch / "engine", scratch / "repository")


def load(model: str, protocol: str, port: int, clients: int, seconds: float, scratch: Path) -> dict:
    """One run of `python -m inflight.bench serve`, in a process of its own as clients are."""
    report = scratch / "report.json"
    subprocess.run(
        [sys.executable, "-m", "inflight.bench", "serve", f"--url=127.0.0.1:{port}", f"--model={model}", "--stream",
         f"--protocol={protocol}", f"--clients={clients}", f"--duration={seconds}", f"--output={OUTPUT}",
         f"--json={report}"],
        check=False, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return json.loads(report.read_text(encoding="utf-8"))["results"]


if __name__ == "__main__":
    sys.exit(main())
