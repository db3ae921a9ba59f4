#!/usr/bin/env python3
"""Requests a second under max_utilization and guaranteed_no_evict: short answers, large max_tokens, a small KV cache.

scheduler_policies.py --engine DIR [--requests 200] [--answer 32] [--max-tokens 1024] [--kv-tokens 4096] [--json FILE]:
all requests arrive at once. Their answers end by themselves, after a random number of tokens of which the mean is
--answer: tokens are drawn nearly uniformly, with a seed for each request, and one in --answer of the vocabulary is an
end id. Both policies therefore generate the very same tokens, or the benchmark fails. Medians of --repeats runs.
"""

import argparse
import random
import sys
from pathlib import Path
from statistics import mean, median

from inflight import _native
from inflight.bench.report import print_table, write_json
from inflight.bench.timeline import run_together
from inflight.errors import InflightError

_POLICIES = ("guaranteed_no_evict", "max_utilization")
_UNIFORM = 1e6  # a temperature that leaves no token more likely than another


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=Path, required=True, help="engine directory")
    parser.add_argument("--requests", type=int, default=200, help="of a run (default %(default)s)")
    parser.add_argument("--input", type=int, default=32, help="prompt tokens of a request (default %(default)s)")
    parser.add_argument("--answer", type=int, default=32, help="mean tokens of an answer (default %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=1024, help="that a request asks for (default %(default)s)")
    parser.add_argument("--kv-tokens", type=int, default=4096, help="that the KV cache holds (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each policy (default %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="engine threads; 0: all CPUs it may use (the default)")
    parser.add_argument("--seed", type=int, default=0, help="of prompts and answers (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    try:
        results = measure(options)
    except InflightError as error:
        print(f"scheduler_policies.py: {error}", file=sys.stderr)
        return 1
    columns = ["policy", "requests_per_s", "generated_tokens_per_s", "mean_sequences", "pauses"]
    print_table(columns, [[result[column] for column in columns] for result in results])
    if options.json:
        write_json(options.json, options, {"results": results})
    return 0


def measure(options: argparse.Namespace) -> list[dict]:
    """For each policy, medians and all runs."""
    runs = {policy: [] for policy in _POLICIES}
    lengths = {}
    for _ in range(options.repeats):
        for policy in _POLICIES:  # in turn, so that a slow minute slows both
            figures, lengths[policy] = run(options, policy)
            runs[policy].append(figures)
        if len(set(map(tuple, lengths.values()))) > 1:
            raise InflightError("the policies did not generate the same tokens", "internal")
    return [
        {
            "policy": policy,
            **{name: median(figures[name] for figures in runs[policy]) for name in runs[policy][0]},
            "runs": runs[policy],
        }
        for policy in _POLICIES
    ]


def run(options: argparse.Namespace, policy: str) -> tuple[dict, list[int]]:
    """The figures of one run, and the tokens of each answer."""
    generator = random.Random(options.seed)
    with _native.BatchManager(
        options.engine,
        num_threads=options.threads,
        scheduler_policy=policy,
        max_tokens_in_kv_cache=options.kv_tokens,
        history=1_000_000,
    ) as manager:
        requests = make_requests(options, generator, manager.info.vocab_size)
        timeline = run_together(manager, requests)
        iterations = manager.last_iterations()
        pauses = manager.statistics()["pauses"]
    figures = {
        "requests_per_s": options.requests / timeline.total_seconds,
        "generated_tokens_per_s": sum(timeline.num_tokens) / timeline.total_seconds,
        "mean_sequences": mean(iteration["scheduled_sequences"] for iteration in iterations),
        "pauses": pauses,
    }
    return figures, timeline.num_tokens


def make_requests(options: argparse.Namespace, generator: random.Random, vocab_size: int) -> list[dict]:
    end_ids = generator.sample(range(vocab_size), max(vocab_size // options.answer, 1))
    return [
        {
            "input_ids": [generator.randrange(vocab_size) for _ in range(options.input)],
            "max_new_tokens": options.max_tokens,
            "end_ids": end_ids,
            "top_p": 1.0,
            "temperature": _UNIFORM,
            "random_seed": generator.getrandbits(64),
        }
        for _ in range(options.requests)
    ]


if __name__ == "__main__":
    sys.exit(main())
