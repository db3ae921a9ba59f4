"""Worker of our own engine: inflight_worker.py ENGINE THREADS."""

import sys

from inflight._native import BatchManager
from worker_loop import serve

from inflight import __version__
from inflight.bench.timeline import run_together


def load():
    engine, threads = sys.argv[1:]
    manager = BatchManager(engine, num_threads=int(threads))

    def generate(prompts, outputs):
        requests = [
            {"input_ids": prompt, "max_new_tokens": output, "streaming": True, "end_ids": [-1]}
            for prompt, output in zip(prompts, outputs, strict=True)
        ]
        return run_together(manager, requests).arrivals

    return generate, {"version": __version__}


if __name__ == "__main__":
    serve(load)
