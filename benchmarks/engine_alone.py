"""An engine in a closed loop: engine_alone.py ENGINE REQUESTS_UNDER_WAY SECONDS INPUT OUTPUT, prints JSON.

The same load as `python -m inflight.bench serve` without a server: as many requests under way as there would be
clients, each followed by the next when it has ended; none begins after SECONDS, and the time goes on to the last end.

memory_bytes: what the engine adds to the process. resident: at the end; weights: of its file; kv_cache: all blocks;
share: resident over weights and KV cache, of which all blocks have been used only if the load needs them.
"""

import json
import os
import queue
import random
import sys
import time
from pathlib import Path

from inflight._native import BatchManager
from process_times import cpu_seconds, memory_bytes

from inflight.errors import InflightError

_TIMEOUT_SECONDS = 120.0  # without the end of any request


def main() -> int:
    engine, under_way, seconds, input_tokens, output_tokens = sys.argv[1:]
    before = memory_bytes(os.getpid())["resident"]
    needed = int(under_way) * (int(input_tokens) + int(output_tokens) + 64)  # so that the load uses all blocks
    with BatchManager(Path(engine), max_tokens_in_kv_cache=needed) as manager:
        run(manager, int(under_way), 1.0, int(input_tokens), int(output_tokens))  # warms up
        figures = run(manager, int(under_way), float(seconds), int(input_tokens), int(output_tokens))
        resident = memory_bytes(os.getpid())["resident"] - before
        weights = (Path(engine) / "rank0.safetensors").stat().st_size
        kv_cache = manager.info.num_blocks * manager.info.kv_bytes_per_block
    share = resident / (weights + kv_cache)
    figures["memory_bytes"] = {"resident": resident, "weights": weights, "kv_cache": kv_cache, "share": share}
    print(json.dumps(figures))
    return 0


def run(manager, under_way: int, seconds: float, input_tokens: int, output_tokens: int) -> dict:
    """Tokens a second, and CPU time a request, of one closed loop."""
    random_tokens = random.Random(0)
    ended: queue.SimpleQueue = queue.SimpleQueue()

    def submit() -> None:
        prompt = [random_tokens.randrange(manager.info.vocab_size) for _ in range(input_tokens)]
        manager.submit(prompt, output_tokens, streaming=False, end_ids=[-1], callback=deliver)

    def deliver(_, response) -> None:
        if response.is_final:
            ended.put(response.error)

    start, cpu = time.perf_counter(), cpu_seconds(os.getpid())
    for _ in range(under_way):
        submit()
    completed, running = 0, under_way
    while running:
        try:
            error = ended.get(timeout=_TIMEOUT_SECONDS)
        except queue.Empty:
            raise InflightError(f"no request ended in {_TIMEOUT_SECONDS:.0f} s") from None
        if error is not None:
            raise error
        completed, running = completed + 1, running - 1
        if time.perf_counter() - start < seconds:
            submit()
            running += 1
    elapsed = time.perf_counter() - start
    return {
        "tokens_per_s": completed * output_tokens / elapsed,
        "cpu_ms_per_request": {"engine": 1000 * (cpu_seconds(os.getpid()) - cpu) / completed},
    }


if __name__ == "__main__":
    sys.exit(main())
