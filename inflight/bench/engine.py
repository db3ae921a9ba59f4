"""Speed of an engine alone, through the batch manager that serves it, in this process.

For each batch size N, N requests with random prompts start together and ignore end ids:

  generation tok/s   generated tokens while all N sequences generate: from the last first token to the first last one
  step ms            one token of each of the N sequences, in that time
  context tok/s      prompt tokens over the time until all N first tokens are there, in a run of its own
  end-to-end tok/s   all generated tokens over the whole time, prompts included

Each figure is the median of --repeats runs.
"""

import argparse
import json
import random
from pathlib import Path
from statistics import median

from inflight import _native
from inflight.bench.report import print_table, write_json
from inflight.bench.timeline import Timeline, run_together
from inflight.errors import InflightError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", type=Path, required=True, help="engine directory")
    parser.add_argument("--batch", default="1,4,16,32", help="numbers of concurrent requests (default %(default)s)")
    parser.add_argument("--input", type=int, default=128, help="prompt tokens of a request (default %(default)s)")
    parser.add_argument("--output", type=int, default=64, help="generated tokens of a request (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="runs, after one to warm up (default %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="engine threads; 0: all CPUs it may use (the default)")
    parser.add_argument("--seed", type=int, default=0, help="of the random prompts (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures here")


def run(options: argparse.Namespace) -> int:
    batches = _parse_batches(options.batch)
    if options.output < 2 or options.input < 1 or options.repeats < 1:
        raise InflightError("--output must be at least 2, --input and --repeats at least 1")
    with _native.BatchManager(options.engine, num_threads=options.threads) as manager:
        info = manager.info
        if max(batches) > info.max_batch_size:
            raise InflightError(
                f"--batch {max(batches)} exceeds the engine's max_batch_size, {info.max_batch_size}: "
                "rebuild with a larger --max-batch-size"
            )
        generator = random.Random(options.seed)
        results = []
        for batch in batches:
            prompts = [[generator.randrange(info.vocab_size) for _ in range(options.input)] for _ in range(batch)]
            results.append(_measure(manager, prompts, options.output, options.repeats))
    columns = ["generation_tokens_per_s", "step_ms", "context_tokens_per_s", "end_to_end_tokens_per_s"]
    rows = [[result["batch"], *(result[column] for column in columns)] for result in results]
    print_table(["batch", "generation tok/s", "step ms", "context tok/s", "end-to-end tok/s"], rows)
    if options.json:
        config = json.loads((options.engine / "config.json").read_text(encoding="utf-8"))
        write_json(options.json, options, {"engine": config, "results": results})
    return 0


def _parse_batches(text: str) -> list[int]:
    try:
        batches = [int(part) for part in text.split(",")]
    except ValueError:
        batches = []
    if not batches or min(batches) < 1:
        raise InflightError(f"--batch is {text!r}; it must be positive numbers, such as 1,4,16")
    return batches


def _measure(manager, prompts: list[list[int]], output: int, repeats: int) -> dict:
    """Medians, and all runs, of one batch size."""
    batch, context_tokens = len(prompts), sum(map(len, prompts))
    _run(manager, prompts, output)
    rates = ("generation_tokens_per_s", "context_tokens_per_s", "end_to_end_tokens_per_s")
    runs: dict[str, list[float]] = {name: [] for name in rates}
    for _ in range(repeats):
        runs["context_tokens_per_s"].append(context_tokens / _run(manager, prompts, 1).total_seconds)
        timeline = _run(manager, prompts, output)
        runs["generation_tokens_per_s"].append(timeline.generation_rate())
        runs["end_to_end_tokens_per_s"].append(batch * output / timeline.total_seconds)
    medians = {name: median(values) for name, values in runs.items()}
    step_ms = 1000 * batch / medians["generation_tokens_per_s"]
    return {"batch": batch, **medians, "step_ms": step_ms, "runs": runs}


def _run(manager, prompts: list[list[int]], output: int) -> Timeline:
    request = {"max_new_tokens": output, "streaming": True, "end_ids": [-1]}
    return run_together(manager, [{"input_ids": prompt, **request} for prompt in prompts])
