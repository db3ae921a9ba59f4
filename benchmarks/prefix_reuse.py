#!/usr/bin/env python3
"""Time to first token of prompts that begin alike: computed, from the KV cache, and from its host tier.

prefix_reuse.py --engine DIR [--prefix 1800] [--suffix 20] [--repeats 9] [--json FILE]: in each repeat, prompts of one
new random prefix and different random suffixes are sent, one after another, for one token each:

  miss        nothing of the prompt is cached
  hit         the prefix's blocks are in the KV cache
  host hit    they were moved to host memory: the prompts in between need the whole KV cache

Each figure is the median of the repeats. The counters of the KV cache must show where the prefix came from, or the
benchmark fails.
"""

import argparse
import random
import sys
from pathlib import Path
from statistics import median

from inflight import _native
from inflight.bench.report import print_table, write_json
from inflight.bench.timeline import run_together
from inflight.errors import InflightError

_PLACES = ("miss", "hit", "host_hit")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=Path, required=True, help="engine directory")
    parser.add_argument("--prefix", type=int, default=1800, help="tokens that prompts share (default %(default)s)")
    parser.add_argument("--suffix", type=int, default=20, help="tokens of a prompt's own (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=9, help="after one to warm up (default %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="engine threads; 0: all CPUs it may use (the default)")
    parser.add_argument("--seed", type=int, default=0, help="of the random prompts (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    try:
        results = measure(options)
    except InflightError as error:
        print(f"prefix_reuse.py: {error}", file=sys.stderr)
        return 1
    rows = [[place, results[f"{place}_ms"], results[f"{place}_speedup"]] for place in _PLACES]
    print_table(["prefix", "time to first token ms", "speedup"], rows)
    if options.json:
        write_json(options.json, options, {"results": results})
    return 0


def measure(options: argparse.Namespace) -> dict:
    """Medians, and all runs, in ms."""
    generator = random.Random(options.seed)
    with open_manager(options) as manager:
        times = {place: [] for place in _PLACES}
        for repeat in range(options.repeats + 1):
            prefix = random_tokens(generator, options.prefix, manager)
            sent = {"miss": serve(manager, prefix, options.suffix, generator)}
            sent["hit"] = serve(manager, prefix, options.suffix, generator)
            for _ in range(2):
                serve(manager, random_tokens(generator, options.prefix, manager), options.suffix, generator)
            sent["host_hit"] = serve(manager, prefix, options.suffix, generator)
            check_places(sent, options.prefix // manager.info.tokens_per_block)
            if repeat > 0:
                for place in _PLACES:
                    times[place].append(sent[place]["ms"])
    medians = {place: median(times[place]) for place in _PLACES}
    return {
        **{f"{place}_ms": medians[place] for place in _PLACES},
        **{f"{place}_speedup": medians["miss"] / medians[place] for place in _PLACES},
        "runs_ms": times,
    }


def open_manager(options: argparse.Namespace):
    """A KV cache that holds one prompt, and a host tier that holds four."""
    with _native.BatchManager(options.engine) as manager:
        info = manager.info
    blocks = -(-(options.prefix + options.suffix + 1) // info.tokens_per_block) + 1
    return _native.BatchManager(
        options.engine,
        num_threads=options.threads,
        enable_kv_cache_reuse=True,
        max_tokens_in_kv_cache=blocks * info.tokens_per_block,
        kv_cache_host_bytes=4 * blocks * info.kv_bytes_per_block,
    )


def random_tokens(generator: random.Random, count: int, manager) -> list[int]:
    return [generator.randrange(manager.info.vocab_size) for _ in range(count)]


def serve(manager, prefix: list[int], suffix: int, generator: random.Random) -> dict:
    """One prompt's time to its first token, and the blocks it got from the cache and from the host tier."""
    prompt = prefix + random_tokens(generator, suffix, manager)
    before = manager.statistics()["kv_cache"]
    timeline = run_together(manager, [{"input_ids": prompt, "max_new_tokens": 1, "end_ids": [-1]}])
    after = manager.statistics()["kv_cache"]
    return {
        "ms": 1000 * timeline.total_seconds,
        "reused": after["reused_blocks"] - before["reused_blocks"],
        "onboarded": after["onboarded_blocks"] - before["onboarded_blocks"],
    }


def check_places(sent: dict[str, dict], prefix_blocks: int) -> None:
    wrong = (
        sent["miss"]["reused"] > 0
        or sent["hit"]["reused"] < prefix_blocks
        or sent["host_hit"]["reused"] < prefix_blocks
        or sent["host_hit"]["onboarded"] < prefix_blocks - 2  # the KV cache may have kept a few
    )
    if wrong:
        raise InflightError(
            f"prefixes of {prefix_blocks} blocks did not come from where they should: {sent}", "internal"
        )


if __name__ == "__main__":
    sys.exit(main())
